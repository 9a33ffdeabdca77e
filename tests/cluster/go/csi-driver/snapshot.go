package main

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (e *entry) csiSnapshot() *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: e.ID, SourceVolumeId: e.Source, SizeBytes: e.Size, GroupSnapshotId: e.Group,
		CreationTime: timestamppb.New(e.Created), ReadyToUse: !time.Now().Before(e.ReadyAt)}
}

// plannedSnapshot is a snapshot that was asked for: of a volume, or already there from an earlier call.
type plannedSnapshot struct {
	entry  *entry
	source *entry
	exists bool
}

// planSnapshot checks a request and touches nothing. delay is the class's parameter readyAfter: how long a
// snapshot stays unready after its cut, as on clouds that upload snapshots in the background.
func (d *driver) planSnapshot(name, volume, group, delay string, cut time.Time) (plannedSnapshot, error) {
	id := idOf(name)
	if old := d.store.load(snapshots, id); old != nil {
		if old.Source != volume {
			return plannedSnapshot{}, status.Error(codes.AlreadyExists, "a snapshot of this name exists with another source")
		}
		return plannedSnapshot{entry: old, exists: true}, nil
	}
	source := d.store.load(volumes, volume)
	if source == nil {
		return plannedSnapshot{}, status.Errorf(codes.NotFound, "no volume %q", volume)
	}
	var wait time.Duration
	if delay != "" {
		var err error
		if wait, err = time.ParseDuration(delay); err != nil {
			return plannedSnapshot{}, invalid("parameter readyAfter: %v", err)
		}
	}
	return plannedSnapshot{source: source, entry: &entry{
		ID: id, Name: name, Backing: source.Backing, Source: volume, Group: group, Size: source.Size,
		Created: cut, ReadyAt: cut.Add(wait)}}, nil
}

// cut takes all planned snapshots at one moment.
func (d *driver) cut(planned []plannedSnapshot) error {
	var sources []*entry
	for _, p := range planned {
		if !p.exists {
			sources = append(sources, p.source)
		}
	}
	resume, err := d.store.quiet(sources...)
	if err != nil {
		return err
	}
	defer resume()
	for _, p := range planned {
		if p.exists {
			continue
		}
		err := d.store.create(snapshots, p.entry, func(folder string) error { return d.store.copyDisk(volumes, p.source, folder) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) CreateSnapshot(_ context.Context, q *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if q.Name == "" || q.SourceVolumeId == "" {
		return nil, invalid("name and source volume id are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, err := d.planSnapshot(q.Name, q.SourceVolumeId, "", q.Parameters["readyAfter"], time.Now().UTC())
	if err != nil {
		return nil, err
	}
	if err := d.cut([]plannedSnapshot{p}); err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: p.entry.csiSnapshot()}, nil
}

func (d *driver) DeleteSnapshot(_ context.Context, q *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if q.SnapshotId == "" {
		return nil, invalid("snapshot id is required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.store.load(snapshots, q.SnapshotId) == nil {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	return &csi.DeleteSnapshotResponse{}, d.store.remove(snapshots, q.SnapshotId)
}

// ListSnapshots pages by id: the token is the last id of the page before.
func (d *driver) ListSnapshots(_ context.Context, q *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	r := &csi.ListSnapshotsResponse{}
	for _, e := range d.store.list(snapshots) {
		if q.SnapshotId != "" && e.ID != q.SnapshotId || q.SourceVolumeId != "" && e.Source != q.SourceVolumeId || e.ID <= q.StartingToken {
			continue
		}
		if q.MaxEntries > 0 && len(r.Entries) == int(q.MaxEntries) {
			r.NextToken = r.Entries[len(r.Entries)-1].Snapshot.SnapshotId
			break
		}
		r.Entries = append(r.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: e.csiSnapshot()})
	}
	return r, nil
}
