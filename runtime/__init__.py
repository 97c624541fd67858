"""Load kernel images and launch them: knows no IR and no array library."""
