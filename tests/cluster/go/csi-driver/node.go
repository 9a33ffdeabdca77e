package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	r := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
	} {
		r.Capabilities = append(r.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return r, nil
}

// NodeStageVolume mounts an ext4 image once for all pods of the node; other backings need no staging.
func (d *driver) NodeStageVolume(_ context.Context, q *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if q.VolumeId == "" || q.StagingTargetPath == "" || q.VolumeCapability == nil {
		return nil, invalid("volume id, staging path and capability are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.store.load(volumes, q.VolumeId)
	if e == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", q.VolumeId)
	}
	if e.Backing != ext4 || mounted(q.StagingTargetPath) {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if err := os.MkdirAll(q.StagingTargetPath, 0o750); err != nil {
		return nil, internal(err)
	}
	image := d.store.image(volumes, e.ID)
	// Grown here, before the mount: growing a mounted ext4 needs CAP_SYS_RESOURCE, which root may lack in a container.
	if err := growFilesystem(image); err != nil {
		return nil, internal(err)
	}
	options := strings.Join(append([]string{"loop"}, q.VolumeCapability.GetMount().GetMountFlags()...), ",")
	if err := run("mount", "-t", "ext4", "-o", options, image, q.StagingTargetPath); err != nil {
		return nil, internal(err)
	}
	if err := os.WriteFile(d.store.path(volumes, e.ID, "staged"), []byte(q.StagingTargetPath), 0o644); err != nil {
		return nil, internal(err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (d *driver) NodeUnstageVolume(_ context.Context, q *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if q.VolumeId == "" || q.StagingTargetPath == "" {
		return nil, invalid("volume id and staging path are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if mounted(q.StagingTargetPath) {
		if err := run("umount", q.StagingTargetPath); err != nil {
			return nil, internal(err)
		}
	}
	os.Remove(d.store.path(volumes, q.VolumeId, "staged"))
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, q *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if q.VolumeId == "" || q.TargetPath == "" || q.VolumeCapability == nil {
		return nil, invalid("volume id, target path and capability are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.store.load(volumes, q.VolumeId)
	if e == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", q.VolumeId)
	}
	if mounted(q.TargetPath) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := d.publish(e, q); err != nil {
		return nil, internal(err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// publish binds the volume to where kubelet wants it: a folder, or for a block volume a file that a device covers.
func (d *driver) publish(e *entry, q *csi.NodePublishVolumeRequest) error {
	if err := os.MkdirAll(filepath.Dir(q.TargetPath), 0o750); err != nil {
		return err
	}
	var from string
	switch e.Backing {
	case block:
		device, err := attach(d.store.image(volumes, e.ID))
		if err != nil {
			return err
		}
		if err := os.WriteFile(q.TargetPath, nil, 0o600); err != nil {
			return err
		}
		return run("mount", "--bind", device, q.TargetPath)
	case ext4:
		from = q.StagingTargetPath
	default:
		from = d.store.path(volumes, e.ID, "files")
	}
	if err := os.MkdirAll(q.TargetPath, 0o750); err != nil {
		return err
	}
	if err := run("mount", "--bind", from, q.TargetPath); err != nil || !q.Readonly {
		return err
	}
	return run("mount", "-o", "remount,bind,ro", q.TargetPath)
}

// attach returns the loop device over an image, a new one where there is none.
func attach(image string) (string, error) {
	if loops := loopsOf(image); len(loops) > 0 {
		return loops[0], nil
	}
	if err := run("losetup", "--find", image); err != nil {
		return "", err
	}
	if loops := loopsOf(image); len(loops) > 0 {
		return loops[0], nil
	}
	return "", fmt.Errorf("losetup made no loop device over %s", image)
}

func (d *driver) NodeUnpublishVolume(_ context.Context, q *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if q.VolumeId == "" || q.TargetPath == "" {
		return nil, invalid("volume id and target path are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if mounted(q.TargetPath) {
		if err := run("umount", q.TargetPath); err != nil {
			return nil, internal(err)
		}
	}
	os.Remove(q.TargetPath) // never RemoveAll: should the unmount have failed unseen, the target is the data
	if e := d.store.load(volumes, q.VolumeId); e != nil && e.Backing == block {
		for _, loop := range loopsOf(d.store.image(volumes, e.ID)) {
			run("losetup", "--detach", loop) // while another pod holds the device, it only goes when that one lets go
		}
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, q *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if q.VolumeId == "" || q.VolumePath == "" {
		return nil, invalid("volume id and path are required")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.store.load(volumes, q.VolumeId)
	if e == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", q.VolumeId)
	}
	for _, loop := range loopsOf(d.store.image(volumes, e.ID)) {
		err := run("losetup", "--set-capacity", loop)
		if err == nil && e.Backing == ext4 {
			err = run("resize2fs", loop)
		}
		if err != nil {
			return nil, internal(err)
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: e.Size}, nil
}

func (d *driver) NodeGetVolumeStats(_ context.Context, q *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if q.VolumeId == "" || q.VolumePath == "" {
		return nil, invalid("volume id and path are required")
	}
	e := d.store.load(volumes, q.VolumeId)
	if e == nil || !mounted(q.VolumePath) {
		return nil, status.Error(codes.NotFound, "no such volume or path")
	}
	usage := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: e.Size}
	if e.Backing == ext4 {
		var s syscall.Statfs_t
		if err := syscall.Statfs(q.VolumePath, &s); err != nil {
			return nil, internal(err)
		}
		usage.Total = int64(s.Blocks) * s.Bsize
		usage.Available = int64(s.Bavail) * s.Bsize
		usage.Used = int64(s.Blocks-s.Bfree) * s.Bsize
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{usage}}, nil
}
