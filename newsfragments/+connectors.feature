A stream whose connector refuses it, does not finish its handshake within 1 s, or whose session is silent for 5 s when the stream is opened, gets another connector of the service.
