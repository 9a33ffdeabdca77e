package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// run executes a program and puts what it printed into the error.
func run(command ...string) error {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}

// loopsOf lists the loop devices that lie over an image.
func loopsOf(image string) []string {
	out, _ := exec.Command("losetup", "--noheadings", "--output", "NAME", "--associated", image).Output()
	return strings.Fields(string(out))
}

// mounted says whether something is mounted exactly at a path.
func mounted(path string) bool {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(table), "\n") {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			return true
		}
	}
	return false
}

// makeDisk fills an entry's folder with an empty volume of size bytes.
func makeDisk(folder string, kind backing, size int64) error {
	if kind == directory {
		if err := os.Mkdir(folder+"/files", 0o777); err != nil {
			return err
		}
		return os.Chmod(folder+"/files", 0o777) // past the umask: pods of any user may write
	}
	image := folder + "/disk.img"
	if err := run("truncate", "-s", strconv.FormatInt(size, 10), image); err != nil || kind == block {
		return err
	}
	return run("mkfs.ext4", "-q", "-F", "-m0", image)
}

// copyDisk copies an entry's data into another's folder. Whoever wants a point in time quiets the source before.
func (s store) copyDisk(on shelf, source *entry, folder string) error {
	if source.Backing == directory {
		return run("cp", "-a", "--reflink=auto", s.path(on, source.ID, "files"), folder+"/files")
	}
	return run("cp", "-a", "--reflink=auto", "--sparse=always", s.image(on, source.ID), folder+"/disk.img")
}

// quiet holds back writes to volumes until the returned function is called: a mounted ext4 is frozen,
// a loop device's buffers are flushed. All of a group are held at once, so that their copies are of one moment.
func (s store) quiet(sources ...*entry) (resume func(), err error) {
	var frozen []string
	resume = func() {
		for _, path := range frozen {
			run("fsfreeze", "--unfreeze", path)
		}
	}
	for _, source := range sources {
		if path := s.stagedAt(source.ID); path != "" {
			if err := run("fsfreeze", "--freeze", path); err != nil {
				resume()
				return nil, internal(err)
			}
			frozen = append(frozen, path)
		}
		if source.Backing == directory {
			continue
		}
		for _, loop := range loopsOf(s.image(volumes, source.ID)) {
			if err := run("blockdev", "--flushbufs", loop); err != nil {
				resume()
				return nil, internal(err)
			}
		}
	}
	return resume, nil
}

// growImage enlarges an image that nobody uses, and the filesystem in it.
func growImage(image string, kind backing, size int64) error {
	if err := os.Truncate(image, size); err != nil || kind == block {
		return err
	}
	return growFilesystem(image)
}

// growFilesystem lets an unmounted ext4 fill its image. The check replays the journal that a copy of a
// mounted filesystem carries; its exit code 1 only says that it did.
func growFilesystem(image string) error {
	var exit *exec.ExitError
	if err := run("e2fsck", "-fp", image); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return err
	}
	return run("resize2fs", image)
}
