"""What the user wants: the schema of a recipe, and how a file with overrides becomes one."""
