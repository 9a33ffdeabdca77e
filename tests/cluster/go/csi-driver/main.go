// Command csi-driver is a CSI driver for the test cluster, in one process: identity, controller, group
// controller and node services on a unix socket, registration with kubelet, and the provisioner that
// turns claims into volumes.
//
// It exists because a backup operator is only proven against a driver that behaves as a user's does:
// snapshots that are a point in time, claims filled from snapshots and from other claims, block
// devices, real "no space left", and one class of storage without any snapshots at all.
package main

import (
	"context"
	"flag"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	klog.InitFlags(nil)
	name := flag.String("name", "test.csi.backstay.dev", "driver name, as StorageClasses name it in provisioner")
	node := flag.String("node", "node1", "name of the node this driver runs on")
	data := flag.String("data", "", "folder for volumes and snapshots")
	endpoint := flag.String("endpoint", "", "path of the CSI socket")
	registration := flag.String("registration", "", "path of the registration socket in kubelet's plugins_registry; empty: do not register")
	kubeconfig := flag.String("kubeconfig", "", "empty: no provisioner")
	snapshots := flag.Bool("snapshots", true, "offer snapshots, group snapshots and clones")
	flag.Parse()

	volumes, err := openStore(*data)
	must(err)
	d := &driver{store: volumes, name: *name, node: *node, endpoint: *endpoint, snapshots: *snapshots}
	serve(*endpoint, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, d)
		csi.RegisterControllerServer(s, d)
		csi.RegisterNodeServer(s, d)
		if d.snapshots {
			csi.RegisterGroupControllerServer(s, d)
		}
	})
	if *registration != "" {
		serve(*registration, func(s *grpc.Server) { registerapi.RegisterRegistrationServer(s, d) })
		defer os.Remove(*registration)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if *kubeconfig != "" {
		must(startProvisioner(ctx, *kubeconfig, *name, *endpoint))
	}
	<-ctx.Done()
}

// serve answers gRPC on a unix socket in the background and logs every call with its time and error.
func serve(socket string, register func(*grpc.Server)) {
	must(os.MkdirAll(filepath.Dir(socket), 0o750))
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	must(err)
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		start := time.Now()
		r, err := next(ctx, q)
		klog.V(2).Infof("%s %v %v", filepath.Base(info.FullMethod), time.Since(start).Round(time.Millisecond), err)
		return r, err
	}))
	register(s)
	go func() { must(s.Serve(listener)) }()
}

func must(err error) {
	if err != nil {
		klog.Fatal(err)
	}
}
