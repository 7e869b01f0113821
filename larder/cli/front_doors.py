"""How users come to larder: messages tell them what to type, the way they came."""

FRONT_DOORS = {"make": "make", "larder": "larder", "module": "python3 -m larder"}
"""What they type, by the name that stages get in LARDER_FRONT_DOOR."""
