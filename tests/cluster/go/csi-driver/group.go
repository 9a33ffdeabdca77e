package main

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (d *driver) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{
			Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT}}}}}, nil
}

// group gathers a group snapshot from its members: it has no record of its own, so it cannot disagree with them.
func (d *driver) group(id string) *csi.VolumeGroupSnapshot {
	g := &csi.VolumeGroupSnapshot{GroupSnapshotId: id, ReadyToUse: true}
	for _, e := range d.store.list(snapshots) {
		if e.Group != id {
			continue
		}
		s := e.csiSnapshot()
		g.Snapshots = append(g.Snapshots, s)
		g.CreationTime = s.CreationTime
		g.ReadyToUse = g.ReadyToUse && s.ReadyToUse
	}
	return g
}

func (d *driver) CreateVolumeGroupSnapshot(_ context.Context, q *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	if q.Name == "" || len(q.SourceVolumeIds) == 0 {
		return nil, invalid("name and source volume ids are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id, now := idOf(q.Name), time.Now().UTC()
	var planned []plannedSnapshot
	for _, volume := range q.SourceVolumeIds {
		p, err := d.planSnapshot(id+"."+volume, volume, id, q.Parameters["readyAfter"], now)
		if err != nil {
			return nil, err
		}
		planned = append(planned, p)
	}
	if old := d.group(id); len(old.Snapshots) > len(planned) {
		return nil, status.Error(codes.AlreadyExists, "a group of this name exists with other sources")
	}
	if err := d.cut(planned); err != nil {
		return nil, err
	}
	g := d.group(id)
	if len(g.Snapshots) != len(planned) {
		return nil, status.Error(codes.AlreadyExists, "a group of this name exists with other sources")
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: g}, nil
}

func (d *driver) DeleteVolumeGroupSnapshot(_ context.Context, q *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	if q.GroupSnapshotId == "" {
		return nil, invalid("group snapshot id is required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.group(q.GroupSnapshotId).Snapshots {
		if err := d.store.remove(snapshots, s.SnapshotId); err != nil {
			return nil, internal(err)
		}
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

func (d *driver) GetVolumeGroupSnapshot(_ context.Context, q *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	if q.GroupSnapshotId == "" {
		return nil, invalid("group snapshot id is required")
	}
	g := d.group(q.GroupSnapshotId)
	if len(g.Snapshots) == 0 {
		return nil, status.Errorf(codes.NotFound, "no group snapshot %q", q.GroupSnapshotId)
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: g}, nil
}
