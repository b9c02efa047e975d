"""What `pxy doctor` looks at: each file finds facts out, and judges them apart from
that, by functions of the facts alone."""
