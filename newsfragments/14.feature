A request of few bytes over a direct path takes less time, because a datagram passes fewer layers and a
local TCP connection no longer waits to fill a segment. `p2pnet.__all__` and `docs/api.md` say which
names are public, and `p2pnet.testing` helps to test a program that uses p2pnet.
