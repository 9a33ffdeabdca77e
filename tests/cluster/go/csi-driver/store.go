package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"time"
)

// shelf is a folder of the store: volumes and snapshots are kept alike, side by side.
type shelf string

const (
	volumes   shelf = "volumes"
	snapshots shelf = "snapshots"
)

// backing is what a volume is made of.
type backing string

const (
	directory backing = "directory" // a folder, bind-mounted; its copies are not a point in time while someone writes
	ext4      backing = "ext4"      // a sparse image, loop-mounted; its copies are frozen, its size is enforced
	block     backing = "block"     // a sparse image on a loop device, for volumeMode Block
)

// entry describes one volume or snapshot. Size is in bytes, times are UTC.
type entry struct {
	ID      string
	Name    string
	Backing backing
	Source  string // of a volume: "<shelf>/<id>" it was filled from; of a snapshot: the volume's id
	Group   string // of a snapshot: the group snapshot it belongs to
	Size    int64
	Created time.Time
	ReadyAt time.Time // of a snapshot: when readyToUse turns true
}

// store is a folder <root>/<shelf>/<id>/{entry.json, files/ | disk.img, staged}.
type store struct{ root string }

var safeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$`)

func openStore(root string) (store, error) {
	for _, s := range []shelf{volumes, snapshots} {
		if err := os.MkdirAll(filepath.Join(root, string(s)), 0o755); err != nil {
			return store{}, err
		}
	}
	return store{root: root}, nil
}

// idOf derives an id from the name a caller chose, so that a repeated call finds the first call's entry.
func idOf(name string) string {
	if safeID.MatchString(name) {
		return name
	}
	return fmt.Sprintf("h-%x", sha256.Sum256([]byte(name)))[:34]
}

func (s store) path(on shelf, id string, more ...string) string {
	return filepath.Join(append([]string{s.root, string(on), id}, more...)...)
}

func (s store) image(on shelf, id string) string { return s.path(on, id, "disk.img") }

// load returns nil where there is no such entry.
func (s store) load(on shelf, id string) *entry {
	if !safeID.MatchString(id) {
		return nil
	}
	e := &entry{}
	text, err := os.ReadFile(s.path(on, id, "entry.json"))
	if err != nil || json.Unmarshal(text, e) != nil {
		return nil
	}
	return e
}

// list returns a shelf's entries in the order of their ids.
func (s store) list(on shelf) []*entry {
	var found []*entry
	folders, _ := os.ReadDir(s.path(on, ""))
	for _, f := range folders {
		if e := s.load(on, f.Name()); e != nil {
			found = append(found, e)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].ID < found[j].ID })
	return found
}

// create makes an entry in a temporary folder and renames it, so that an entry is whole or absent even
// when the driver is killed while it copies.
func (s store) create(on shelf, e *entry, fill func(folder string) error) error {
	temporary := s.path(on, ".new-"+e.ID)
	os.RemoveAll(temporary)
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return internal(err)
	}
	err := fill(temporary)
	if err == nil {
		err = writeEntry(temporary, e)
	}
	if err == nil {
		err = os.Rename(temporary, s.path(on, e.ID))
	}
	if err != nil {
		os.RemoveAll(temporary)
		return internal(err)
	}
	return nil
}

// update replaces an existing entry's description.
func (s store) update(on shelf, e *entry) error { return writeEntry(s.path(on, e.ID), e) }

func (s store) remove(on shelf, id string) error { return os.RemoveAll(s.path(on, id)) }

func writeEntry(folder string, e *entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	temporary := filepath.Join(folder, "entry.json.new")
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(folder, "entry.json"))
}

// stagedAt returns where a volume's filesystem is mounted, or "" where it is not.
func (s store) stagedAt(id string) string {
	text, err := os.ReadFile(s.path(volumes, id, "staged"))
	if err != nil || !mounted(string(text)) {
		return ""
	}
	return string(text)
}
