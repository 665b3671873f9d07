package cluster

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	domain     = "castd.example"
	plain, tls = "_etcd-server._tcp." + domain, "_etcd-server-ssl._tcp." + domain
)

// port is that of a member's peer listener.
func port(t testing.TB, s *harness.Server) uint16 {
	t.Helper()
	_, text, err := net.SplitHostPort(s.PeerAddr)
	harness.Fatal(t, err)
	number, err := strconv.ParseUint(text, 10, 16)
	harness.Fatal(t, err)
	return uint16(number)
}

// named is the URL of a member's peer listener, by its name.
func named(t testing.TB, s *harness.Server) string {
	t.Helper()
	return fmt.Sprintf("http://%s.%s:%d", s.Name, domain, port(t, s))
}

// serve makes the members known under their names and lists them as a service.
func serve(t testing.TB, n *harness.Names, service string, members ...*harness.Server) {
	t.Helper()
	for _, s := range members {
		name := s.Name + "." + domain
		n.Host(name)
		n.Serve(service, name, port(t, s))
	}
}

// byName prepares members that begin by what the name server knows.
func byName(t *testing.T, names *harness.Names, count int, flags ...string) *harness.Cluster {
	t.Helper()
	c := harness.PrepareCluster(t, count)
	for _, s := range c.Members {
		s.UseNames(names)
		s.BeginAs(flags...)
	}
	return c
}

// wantPeers checks where the members are reached, as each of them tells it.
func wantPeers(t *testing.T, c *harness.Cluster, want []string) {
	t.Helper()
	ctx := harness.Context(t, settle)
	for _, s := range c.Members {
		list, err := members(t, s).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		harness.Fatal(t, err)
		var got []string
		for _, m := range list.Members {
			got = append(got, m.Name+" "+strings.Join(m.PeerURLs, ","))
		}
		slices.Sort(got)
		harness.Equal(t, "members", strings.Join(got, "; "), strings.Join(want, "; "))
	}
}

// Members that know only a domain find each other by its SRV records, also those
// that advertise an address and not their name; once they have data, they need
// the records no more.
func TestNames(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		service string
		flags   []string
		search  []string
		both    bool
	}{
		"domain": {plain, []string{"--discovery-srv=" + domain}, nil, false},
		"service name": {
			"_etcd-server-blue._tcp." + domain,
			[]string{"--discovery-srv=" + domain, "--discovery-srv-name=blue"}, nil, false,
		},
		"absolute domain": {plain, []string{"--discovery-srv=" + domain + "."}, nil, false},
		"domain to be searched": {
			plain, []string{"--discovery-srv=castd"}, []string{"else.example", "example"}, false,
		},
		"two families of addresses": {plain, []string{"--discovery-srv=" + domain}, nil, true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names, ctx := harness.StartNames(t, test.search...), harness.Context(t, testTimeout)
			names.Both = test.both
			c := byName(t, names, 3, test.flags...)
			serve(t, names, test.service, c.Members...)
			var want []string
			for i, s := range c.Members {
				want = append(want, s.Name+" "+named(t, s))
				// One keeps its address, where that is the name's only one.
				if i != 1 || test.both {
					s.BeginAs(append(test.flags, "--initial-advertise-peer-urls="+named(t, s))...)
				}
			}
			c.StartAll(t)
			wantPeers(t, c, want)
			put(ctx, t, c.Members[2], "k", "v")
			wantSameHash(ctx, t, c.Members)

			names.Forget(test.service)
			c.KillAll(t)
			c.StartAll(t)
			harness.Equal(t, "pair", harness.KVs(everything(ctx, t, c.Members[0], false).Kvs), "k=v c2 m2 v1")
		})
	}
}

// Why a member does not start by SRV records, in etcd's words, and how it ends.
func TestNamesThatLeadNowhere(t *testing.T) {
	t.Parallel()
	const query = "error querying DNS SRV records for "
	cases := map[string]struct {
		flags []string
		know  func(t *testing.T, n *harness.Names, s *harness.Server)
		want  func(n *harness.Names, s *harness.Server) string
	}{
		"no records": {
			nil,
			func(*testing.T, *harness.Names, *harness.Server) {},
			func(n *harness.Names, _ *harness.Server) string {
				return query + "_etcd-server-ssl lookup " + tls + " on " + n.Addr + ": no such host\n" +
					query + "_etcd-server lookup " + plain + " on " + n.Addr + ": no such host"
			},
		},
		"no records of the service": {
			[]string{"--discovery-srv-name=blue"},
			func(t *testing.T, n *harness.Names, s *harness.Server) { serve(t, n, plain, s) },
			func(n *harness.Names, _ *harness.Server) string {
				return query + "_etcd-server-ssl-blue lookup _etcd-server-ssl-blue._tcp." + domain +
					" on " + n.Addr + ": no such host\n" +
					query + "_etcd-server-blue lookup _etcd-server-blue._tcp." + domain +
					" on " + n.Addr + ": no such host"
			},
		},
		"a target without an address": {
			nil,
			func(t *testing.T, n *harness.Names, s *harness.Server) {
				n.Serve(plain, "gone."+domain, port(t, s))
			},
			func(n *harness.Names, _ *harness.Server) string {
				return query + "_etcd-server-ssl lookup " + tls + " on " + n.Addr + ": no such host\n" +
					query + "_etcd-server lookup gone." + domain + ". on " + n.Addr + ": no such host"
			},
		},
		"others only": {
			nil,
			func(t *testing.T, n *harness.Names, s *harness.Server) {
				n.Host("m1." + domain)
				n.Serve(plain, "m1."+domain, port(t, s)+1)
			},
			func(_ *harness.Names, s *harness.Server) string {
				return fmt.Sprintf("cannot find local etcd member %q in SRV records", s.Name)
			},
		},
		"another scheme": {
			nil,
			func(t *testing.T, n *harness.Names, s *harness.Server) { serve(t, n, tls, s) },
			func(n *harness.Names, s *harness.Server) string {
				_, number, _ := net.SplitHostPort(s.PeerAddr)
				return query + "_etcd-server-ssl bootstrap at https://m1." + domain + ":" + number +
					" from DNS for etcd-server-ssl has scheme mismatch with expected peer " + s.PeerURL() + "\n" +
					query + "_etcd-server lookup " + plain + " on " + n.Addr + ": no such host"
			},
		},
		"an advertised name that nobody knows": {
			[]string{"--initial-advertise-peer-urls=http://nobody." + domain + ":2380"},
			func(t *testing.T, n *harness.Names, s *harness.Server) { serve(t, n, plain, s) },
			func(n *harness.Names, _ *harness.Server) string {
				missing := "lookup nobody." + domain + " on " + n.Addr + ": no such host"
				return missing + "\n" + missing // one of each service
			},
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names := harness.StartNames(t)
			flags := append([]string{"--discovery-srv=" + domain}, test.flags...)
			s := byName(t, names, 1, flags...).Members[0]
			test.know(t, names, s)
			s.Launch(t)
			harness.Equal(t, "its end", s.WaitExit(t).String(), "exit status 1")
			wantLogged(t, s, "error setting up initial cluster: "+test.want(names, s))
		})
	}
}

// wantLogged looks for the error in the log, where it is written as in JSON.
func wantLogged(t *testing.T, s *harness.Server, text string) {
	t.Helper()
	quoted := strconv.Quote(text)
	if log := s.Log(t); !strings.Contains(log, `"error":`+quoted) {
		t.Errorf("its log does not say %s; it says\n%s", quoted, log)
	}
}
