"""What each subcommand does; beside this room, the options that it takes."""
