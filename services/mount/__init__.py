"""mount: mount a bucket as a read-only folder, with rclone and FUSE."""
