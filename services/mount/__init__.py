"""The mount stage: a bucket as a read-only folder, by rclone and FUSE."""
