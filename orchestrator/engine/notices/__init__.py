"""What a cloud says of a machine that it is about to take away, and the watch that turns it into Ray's drain."""
