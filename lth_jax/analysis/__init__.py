"""What results say in numbers: pure functions of rows, curves and masks."""
