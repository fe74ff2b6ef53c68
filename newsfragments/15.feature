Candidates and check credentials travel inside the end-to-end connection: no Intermediate sees or forges them. Under `direct-only` relays carry no user data, also after a direct path died.
