"""The library door: `import mmfuse` has the verbs of the command line, imported when first used."""
