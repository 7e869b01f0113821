"""bench: measures how fast an arm, one way of reading a data set, feeds a training loop."""
