"""Whether drift is told where there is some, and not told where there is none."""
