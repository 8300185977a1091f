package testnet_test
import ("testing";"time";"net/netip";"crypto/tls";"github.com/quic-go/quic-go";"github.com/defenseunicorns/peat-mesh-go/internal/testnet")
func TestScratchHub(t *testing.T){ real0 := time.Now(); _ = real0
virtual(t, func(t *testing.T, n *testnet.Net){
 n.SetDefaultLink(testnet.Link{Latency: 25*ms, Loss: 0.01})
 c := &quic.Config{KeepAlivePeriod: 5*time.Second, MaxIdleTimeout: 15*time.Second}
 hub := n.Host("hub", addr("10.0.0.1")); hc := listen(t, hub, 1)
 st := &quic.Transport{Conn: hc}; l, err := st.Listen(serverTLS(t), c); if err != nil {t.Fatal(err)}
 go serveEcho(l)
 var trs []*quic.Transport
 for i := range 29 {
  s := listen(t, n.Host("s", netip.AddrFrom4([4]byte{10,0,1,byte(i)})), 1)
  tr := &quic.Transport{Conn: s}; trs = append(trs, tr)
  conn, err := tr.Dial(t.Context(), hc.LocalAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"echo"}}, c)
  if err != nil {t.Fatal(err)}
  echo(t, conn, 1<<20)
 }
 time.Sleep(10*time.Hour)
 t.Logf("%+v", hub.Stats())
 for _, tr := range trs { tr.Close() }
 st.Close()
})}
