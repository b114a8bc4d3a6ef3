"""One module per figure and table of the paper: frames in, figure or frame out."""
