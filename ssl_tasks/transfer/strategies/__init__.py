"""The ways to reuse an encoder, one file each."""
