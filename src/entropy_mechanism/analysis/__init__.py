"""The law, forecasts and entropy dynamics: frames in, frames out."""
