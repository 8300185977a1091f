package netmon

import (
	"net/netip"
	"testing"
)

// A container host: eth0 (2) with the default route, a bridge (3) for containers with its port (4), another
// bridge (5) with the port eth1 (6), and the host's end of a routed container's link (7).
func containerHost() tables {
	at := func(i int, prefix string) address { return address{link: i, prefix: netip.MustParsePrefix(prefix)} }
	return tables{
		links: map[int]link{
			1: {running: true, loopback: true},
			2: {running: true, ups: 1},
			3: {running: true, kind: "bridge"},
			4: {running: true, kind: "veth", master: 3},
			5: {running: true, kind: "bridge"},
			6: {running: true, master: 5},
			7: {running: true, kind: "veth"},
		},
		addrs: []address{
			at(1, "127.0.0.1/8"), at(2, "192.0.2.5/24"), at(2, "fe80::2/64"), at(3, "172.17.0.1/16"), at(3, "fe80::3/64"),
			at(4, "fe80::4/64"), at(5, "10.0.0.1/24"), at(6, "fe80::6/64"), at(7, "fe80::7/64"),
		},
		routes: []route{
			{links: []int{2}, all: true, key: "default dev eth0"},
			{links: []int{7}, key: "10.244.0.7 dev cali7"},
			{links: []int{5}, key: "10.0.1.0/24 dev br0"},
		},
	}
}

func TestOnlyWhatLeadsToOthersIsAChange(t *testing.T) {
	add := func(t *tables, i int, prefix string) {
		t.addrs = append(t.addrs, address{link: i, prefix: netip.MustParsePrefix(prefix)})
	}
	for _, tc := range []struct {
		name   string
		change func(*tables)
		cause  Cause
	}{
		{"nothing", func(t *tables) {}, none},
		{"address on an uplink", func(t *tables) { add(t, 2, "2001:db8::5/64") }, Address},
		{"the same address with another prefix", func(t *tables) { t.addrs[1].prefix = netip.MustParsePrefix("192.0.2.5/25") }, Address},
		{"address of an uplink gone", func(t *tables) { t.addrs[1] = t.addrs[0] }, Address},
		{"address deprecated", func(t *tables) { t.addrs[1].deprecated = true }, Address},
		{"address on a bridge that has an uplink", func(t *tables) { add(t, 5, "10.0.0.9/24") }, Address},
		{"address on the bridge of containers", func(t *tables) { add(t, 3, "172.17.0.9/16") }, none},
		{"address on the host's end of a container's link", func(t *tables) { add(t, 7, "fe80::77/64") }, none},
		{"address on a port", func(t *tables) { add(t, 6, "10.9.0.1/24") }, none},
		{"address on the loopback interface", func(t *tables) { add(t, 1, "127.0.0.2/8") }, none},
		{"another link-local address", func(t *tables) { add(t, 2, "fe80::22/64") }, none},
		{"container begins", func(t *tables) {
			t.links[8] = link{running: true, kind: "veth", master: 3}
			add(t, 8, "fe80::8/64")
			t.links[9] = link{running: true, kind: "veth"}
			add(t, 9, "fe80::9/64")
			t.routes = append(t.routes, route{links: []int{9}, key: "10.244.0.9 dev cali9"})
		}, none},
		{"virtual machine begins", func(t *tables) { t.links[8] = link{running: true, kind: "tun", master: 3} }, none},
		{"virtual machine with a macvtap begins", func(t *tables) { t.links[8] = link{running: true, kind: "macvtap"}; add(t, 8, "fe80::8/64") }, none},
		{"last container ends", func(t *tables) { t.links[3] = link{kind: "bridge"}; delete(t.links, 4) }, none},
		{"containers' bridge gets an uplink", func(t *tables) { t.links[8] = link{running: true, master: 3} }, Address},
		{"default route over the containers' bridge", func(t *tables) {
			t.routes = append(t.routes, route{links: []int{3}, all: true, key: "default dev docker0"})
		}, Address},
		{"link without an address", func(t *tables) { t.links[8] = link{running: true} }, none},
		{"link with a link-local address only", func(t *tables) { t.links[8] = link{running: true}; add(t, 8, "fe80::8/64") }, Link},
		{"tunnel of a VPN", func(t *tables) { t.links[8] = link{running: true, kind: "tun"}; add(t, 8, "10.8.0.2/24") }, Link},
		{"link down", func(t *tables) { t.links[2] = link{ups: 1} }, Link},
		{"link was down", func(t *tables) { t.links[2] = link{running: true, ups: 2} }, Link},
		{"link of a container was down", func(t *tables) { t.links[4] = link{running: true, kind: "veth", master: 3, ups: 2} }, none},
		{"address on a link that had none", func(t *tables) { add(t, 6, "10.9.0.1/24"); t.links[6] = link{running: true} }, Address},
		{"default route over another gateway", func(t *tables) { t.routes[0].key = "default via 192.0.2.2 dev eth0" }, Route},
		{"default route over another link", func(t *tables) { t.routes[0] = route{links: []int{5}, all: true, key: "default dev br0"} }, Route},
		{"route to a container gone", func(t *tables) { t.routes = append(t.routes[:1], t.routes[2]) }, none},
		{"route that forbids", func(t *tables) { t.routes = append(t.routes, route{key: "unreachable default"}) }, Route},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, after := containerHost(), containerHost()
			tc.change(&after)
			for _, step := range []struct {
				what     string
				from, to tables
			}{{"there", before, after}, {"and back", after, before}} {
				if got := step.from.state().change(step.to.state()); got != tc.cause {
					t.Errorf("%s: %q, want %q", step.what, got, tc.cause)
				}
			}
		})
	}
}

func TestAddressOfVRFPortCounts(t *testing.T) {
	is := containerHost()
	is.links[8] = link{running: true, kind: "vrf"}
	is.links[9] = link{running: true, master: 8}
	was := is.state()
	is.addrs = append(is.addrs, address{link: 9, prefix: netip.MustParsePrefix("10.3.0.1/24")})
	if got := was.change(is.state()); got != Address {
		t.Errorf("%q, want %q", got, Address)
	}
}
