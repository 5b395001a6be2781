"""From YAML and command-line overrides to objects: schema, builder, run folders, suggestions."""
