package main

import (
	"context"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const defaultSize = 64 << 20 // bytes, where a claim asks for none

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	types := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	}
	if d.snapshots {
		types = append(types,
			csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
			csi.ControllerServiceCapability_RPC_CLONE_VOLUME)
	}
	r := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range types {
		r.Capabilities = append(r.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}
	return r, nil
}

func (d *driver) CreateVolume(_ context.Context, q *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	kind, err := backingOf(q)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := &entry{ID: idOf(q.Name), Name: q.Name, Backing: kind, Size: q.GetCapacityRange().GetRequiredBytes(), Created: time.Now().UTC()}
	from, source, err := d.contentSource(q)
	if err != nil {
		return nil, err
	}
	if source != nil {
		e.Source = string(from) + "/" + source.ID
		if e.Backing, err = copiedBacking(kind, source.Backing); err != nil {
			return nil, err
		}
	}
	if e.Size, err = sizeOf(e.Size, source, q.GetCapacityRange().GetLimitBytes()); err != nil {
		return nil, err
	}
	if old := d.store.load(volumes, e.ID); old != nil {
		if old.Size != e.Size || old.Source != e.Source || old.Backing != e.Backing {
			return nil, status.Error(codes.AlreadyExists, "a volume of this name exists with other properties")
		}
	} else if err := d.fill(e, from, source); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: e.ID, CapacityBytes: e.Size, ContentSource: q.VolumeContentSource,
		VolumeContext: map[string]string{"backing": string(e.Backing)}}}, nil
}

// fill creates the volume, empty or as a copy of its source.
func (d *driver) fill(e *entry, from shelf, source *entry) error {
	if source == nil {
		return d.store.create(volumes, e, func(folder string) error { return makeDisk(folder, e.Backing, e.Size) })
	}
	if from == volumes {
		resume, err := d.store.quiet(source)
		if err != nil {
			return err
		}
		defer resume()
	}
	return d.store.create(volumes, e, func(folder string) error {
		if err := d.store.copyDisk(from, source, folder); err != nil || e.Backing == directory || e.Size == source.Size {
			return err
		}
		return growImage(folder+"/disk.img", e.Backing, e.Size)
	})
}

// contentSource finds the snapshot or volume that a new volume is to be filled from; nil where it starts empty.
func (d *driver) contentSource(q *csi.CreateVolumeRequest) (shelf, *entry, error) {
	s := q.GetVolumeContentSource()
	if s == nil {
		return "", nil, nil
	}
	if !d.snapshots {
		return "", nil, invalid("driver %s offers neither snapshots nor clones", d.name)
	}
	from, id := snapshots, s.GetSnapshot().GetSnapshotId()
	if s.GetVolume() != nil {
		from, id = volumes, s.GetVolume().GetVolumeId()
	}
	source := d.store.load(from, id)
	if source == nil {
		return "", nil, status.Errorf(codes.NotFound, "no entry %q in %s", id, from)
	}
	return from, source, nil
}

// backingOf reads what a volume is to be made of from the class's parameters and the claim's volume mode.
func backingOf(q *csi.CreateVolumeRequest) (backing, error) {
	if q.Name == "" || len(q.VolumeCapabilities) == 0 {
		return "", invalid("name and volume capabilities are required")
	}
	for _, c := range q.VolumeCapabilities {
		if c.GetBlock() != nil {
			return block, nil
		}
	}
	switch kind := backing(q.Parameters["backing"]); kind {
	case "":
		return directory, nil
	case directory, ext4:
		return kind, nil
	default:
		return "", invalid("parameter backing: %q is neither %s nor %s", kind, directory, ext4)
	}
}

// copiedBacking settles what a copy is made of: directories and images do not mix, whatever the class says.
func copiedBacking(wanted, source backing) (backing, error) {
	switch {
	case (source == directory) == (wanted == directory):
		return wanted, nil
	case wanted == block:
		return "", invalid("a directory volume cannot become a block volume")
	case source == directory:
		return directory, nil
	default:
		return ext4, nil
	}
}

// sizeOf settles a volume's size in bytes from what is asked, its source and the limit (0: none).
func sizeOf(asked int64, source *entry, limit int64) (int64, error) {
	size := asked
	if source != nil {
		if size == 0 {
			size = source.Size
		}
		if size < source.Size {
			return 0, status.Errorf(codes.OutOfRange, "%d bytes are fewer than the source's %d", size, source.Size)
		}
	}
	if size == 0 {
		size = defaultSize
	}
	if limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "%d bytes are more than the limit %d", size, limit)
	}
	return size, nil
}

func (d *driver) DeleteVolume(_ context.Context, q *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if q.VolumeId == "" {
		return nil, invalid("volume id is required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.store.load(volumes, q.VolumeId) == nil {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if d.store.stagedAt(q.VolumeId) != "" {
		return nil, status.Error(codes.FailedPrecondition, "volume is in use")
	}
	return &csi.DeleteVolumeResponse{}, d.store.remove(volumes, q.VolumeId)
}

func (d *driver) ControllerExpandVolume(_ context.Context, q *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if q.VolumeId == "" || q.CapacityRange == nil {
		return nil, invalid("volume id and capacity range are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.store.load(volumes, q.VolumeId)
	if e == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", q.VolumeId)
	}
	if size := q.CapacityRange.RequiredBytes; size > e.Size {
		if e.Backing != directory {
			if err := os.Truncate(d.store.image(volumes, e.ID), size); err != nil {
				return nil, internal(err)
			}
		}
		e.Size = size
		if err := d.store.update(volumes, e); err != nil {
			return nil, internal(err)
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: e.Size, NodeExpansionRequired: e.Backing != directory}, nil
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, q *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if q.VolumeId == "" || len(q.VolumeCapabilities) == 0 {
		return nil, invalid("volume id and capabilities are required")
	}
	if d.store.load(volumes, q.VolumeId) == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", q.VolumeId)
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeCapabilities: q.VolumeCapabilities, VolumeContext: q.VolumeContext, Parameters: q.Parameters}}, nil
}
