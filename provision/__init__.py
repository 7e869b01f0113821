"""Create and delete the cloud resources that larder runs on: `larder provision`."""

from larder.startup import end_on_signals

end_on_signals()
