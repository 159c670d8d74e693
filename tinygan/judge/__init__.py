"""How good the samples are: judges that ship, and distances on their features."""
