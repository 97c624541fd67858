"""Is every result right on this GPU, and how near to the bound is its speed?"""
