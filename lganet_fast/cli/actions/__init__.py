"""What each subcommand does; its options are in `cli`."""
