package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshotclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// Parameters of a StorageClass under this prefix are meant for the provisioner, not for the driver.
const provisionerParameters = "csi.storage.k8s.io/"

var accessModes = map[v1.PersistentVolumeAccessMode]csi.VolumeCapability_AccessMode_Mode{
	v1.ReadWriteOnce:    csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	v1.ReadWriteOncePod: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	v1.ReadOnlyMany:     csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	v1.ReadWriteMany:    csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

// provisioner turns claims into volumes over the driver's own socket, as the external provisioner does
// from a process of its own.
type provisioner struct {
	driver    string
	volumes   csi.ControllerClient
	kube      kubernetes.Interface
	snapshots snapshotclient.Interface
}

// startProvisioner watches claims in the background until ctx ends.
func startProvisioner(ctx context.Context, kubeconfig, driver, endpoint string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400 // the default of 5 requests a second dominates every test's time
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	snapshots, err := snapshotclient.NewForConfig(config)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix://"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	p := &provisioner{driver: driver, volumes: csi.NewControllerClient(connection), kube: kube, snapshots: snapshots}
	c := controller.NewProvisionController(ctx, kube, driver, p,
		controller.LeaderElection(false), controller.AddFinalizer(true),
		controller.FailedProvisionThreshold(0), controller.FailedDeleteThreshold(0),
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](500*time.Millisecond, 15*time.Second)))
	go c.Run(ctx)
	return nil
}

func (p *provisioner) SupportsBlock(context.Context) bool { return true }

func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	source, err := p.contentSource(ctx, o.PVC)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	request := volumeRequest(o)
	request.VolumeContentSource = source
	r, err := p.volumes.CreateVolume(ctx, request)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: v1.PersistentVolumeSpec{
			AccessModes:  o.PVC.Spec.AccessModes,
			VolumeMode:   o.PVC.Spec.VolumeMode,
			MountOptions: o.StorageClass.MountOptions,
			Capacity:     v1.ResourceList{v1.ResourceStorage: *resource.NewQuantity(r.Volume.CapacityBytes, resource.BinarySI)},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver: p.driver, VolumeHandle: r.Volume.VolumeId, VolumeAttributes: r.Volume.VolumeContext,
				FSType: o.StorageClass.Parameters[provisionerParameters+"fstype"]}}}}
	if o.StorageClass.ReclaimPolicy != nil {
		pv.Spec.PersistentVolumeReclaimPolicy = *o.StorageClass.ReclaimPolicy
	}
	return pv, controller.ProvisioningFinished, nil
}

func (p *provisioner) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != p.driver {
		return &controller.IgnoredError{Reason: "volume of another driver"}
	}
	_, err := p.volumes.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle})
	return err
}

// volumeRequest translates a claim and its class into the driver's words.
func volumeRequest(o controller.ProvisionOptions) *csi.CreateVolumeRequest {
	size := o.PVC.Spec.Resources.Requests[v1.ResourceStorage]
	q := &csi.CreateVolumeRequest{
		Name: o.PVName, Parameters: map[string]string{}, CapacityRange: &csi.CapacityRange{RequiredBytes: size.Value()}}
	for key, value := range o.StorageClass.Parameters {
		if !strings.HasPrefix(key, provisionerParameters) {
			q.Parameters[key] = value
		}
	}
	for _, mode := range o.PVC.Spec.AccessModes {
		c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: accessModes[mode]}}
		if o.PVC.Spec.VolumeMode != nil && *o.PVC.Spec.VolumeMode == v1.PersistentVolumeBlock {
			c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		} else {
			c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{
				FsType: o.StorageClass.Parameters[provisionerParameters+"fstype"], MountFlags: o.StorageClass.MountOptions}}
		}
		q.VolumeCapabilities = append(q.VolumeCapabilities, c)
	}
	return q
}

// contentSource resolves a claim's data source; nil where it has none. The API server has copied an old-style
// dataSource into dataSourceRef.
func (p *provisioner) contentSource(ctx context.Context, claim *v1.PersistentVolumeClaim) (*csi.VolumeContentSource, error) {
	ref := claim.Spec.DataSourceRef
	if ref == nil {
		return nil, nil
	}
	if ref.Namespace != nil && *ref.Namespace != claim.Namespace {
		return nil, fmt.Errorf("a data source in another namespace is not supported")
	}
	group := ""
	if ref.APIGroup != nil {
		group = *ref.APIGroup
	}
	switch group + "/" + ref.Kind {
	case "snapshot.storage.k8s.io/VolumeSnapshot":
		return p.snapshotSource(ctx, claim, ref.Name)
	case "/PersistentVolumeClaim":
		return p.cloneSource(ctx, claim, ref.Name)
	}
	return nil, &controller.IgnoredError{Reason: "data source of kind " + ref.Kind + " is left to a populator"}
}

func (p *provisioner) snapshotSource(ctx context.Context, claim *v1.PersistentVolumeClaim, name string) (*csi.VolumeContentSource, error) {
	s, err := p.snapshots.SnapshotV1().VolumeSnapshots(claim.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	ready := s.Status != nil && s.Status.ReadyToUse != nil && *s.Status.ReadyToUse && s.Status.BoundVolumeSnapshotContentName != nil
	if !ready || s.DeletionTimestamp != nil {
		return nil, fmt.Errorf("snapshot %s is not ready", name)
	}
	content, err := p.snapshots.SnapshotV1().VolumeSnapshotContents().Get(ctx, *s.Status.BoundVolumeSnapshotContentName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	// Both directions of the binding must agree, or a forged snapshot object could name another tenant's content.
	if content.Spec.VolumeSnapshotRef.UID != s.UID || content.Status == nil || content.Status.SnapshotHandle == nil || content.Spec.Driver != p.driver {
		return nil, fmt.Errorf("content %s is not bound to snapshot %s, or is another driver's", content.Name, name)
	}
	from, to := content.Spec.SourceVolumeMode, claim.Spec.VolumeMode
	if from != nil && to != nil && string(*from) != string(*to) && content.Annotations["snapshot.storage.kubernetes.io/allow-volume-mode-change"] != "true" {
		return nil, fmt.Errorf("volume mode may not change from %s to %s", *from, *to)
	}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: *content.Status.SnapshotHandle}}}, nil
}

func (p *provisioner) cloneSource(ctx context.Context, claim *v1.PersistentVolumeClaim, name string) (*csi.VolumeContentSource, error) {
	source, err := p.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if source.Status.Phase != v1.ClaimBound {
		return nil, fmt.Errorf("claim %s is not bound", name)
	}
	pv, err := p.kube.CoreV1().PersistentVolumes().Get(ctx, source.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != p.driver {
		return nil, fmt.Errorf("claim %s is of another driver", name)
	}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: pv.Spec.CSI.VolumeHandle}}}, nil
}
