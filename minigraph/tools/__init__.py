"""What is built on the driver: pictures, importers, the command line. Nothing imports these."""
