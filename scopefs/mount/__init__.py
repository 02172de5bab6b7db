"""The mount: translates FUSE requests to the vault. Nothing here decides what is stored."""
