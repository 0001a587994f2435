"""What of AirwaySeg speaks to Slicer beside the module file: MRML nodes and the console process."""
