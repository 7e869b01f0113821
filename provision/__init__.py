"""Create and delete the cloud resources that larder runs on: `larder provision`."""
