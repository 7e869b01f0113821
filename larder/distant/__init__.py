"""Make a store distant: a TCP proxy that adds round-trip time and limits bandwidth, without root.

link      parse a link; when bytes that enter it come out
find      ask an address whether it is a link's
proxy     forward connections over a link, in a process of its own: `python -m larder.distant`
process   start and stop that process

The proxy stands between clients and a store on this machine or network. It forwards bytes as they are, so signatures
stay valid: clients sign the header `Host` that they send, and stores check the one that they receive. TLS is different:
a certificate names the store, and clients refuse it from another address. So a store with https can't be made distant.

What it adds to each connection: one round trip to set it up, half of one to everything in each direction, and the time
that bytes take at the limited rate, which all connections share, each direction for itself. A request and its response
take one round trip more, also if the connection is used again. It has neither loss nor slow start, and never more than
IN_FLIGHT_BYTES under way in a connection's direction. Real distant stores are slower, most of all for new connections.

The proxy answers one request itself, which asks for the link (`find_link`). That is how records know it.
"""
