"""The methods of `LazyTensor`, by what they make."""
