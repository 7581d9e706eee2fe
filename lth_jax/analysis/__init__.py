"""What results mean: pure functions from rows, masks and tickets to statistics and words."""
