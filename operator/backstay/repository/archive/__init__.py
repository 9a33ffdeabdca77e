"""Into the repository: directories, streams, images and virtual trees become blobs, trees and snapshots."""
