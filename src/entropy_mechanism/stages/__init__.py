"""One module per subcommand: read inputs, call the science, write outputs, inside a tracked stage."""
