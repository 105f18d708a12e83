"""Problems of configuration and of the disk, and their texts."""
