"""QUIC's usual packets without aioquic's general machinery: less than half the cost.

Packets of an established connection carry STREAM, DATAGRAM and ACK frames, and now and then a
window. Those are read in receive.py and written in send.py, or in rows.py where many carry bytes of
one stream; protect.py protects them. Everything else, and everything that is not as it should be,
is left to aioquic. Congestion control, loss recovery, streams and what goes over the wire are
aioquic's: a fast and a stock engine differ in nothing but time.
"""

from p2pnet.quic.fast.send import FastEngine

__all__ = ["FastEngine"]
