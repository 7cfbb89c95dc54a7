"""The command `dnctl`: one file a group of commands; rendering apart."""
