package balance_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"serin/internal/balance"
)

// groups are n groups of one target each, which answers with its group's number.
func groups(t testing.TB, w *world, n int) (ids []string, addrs []netip.AddrPort) {
	t.Helper()
	for i := range n {
		id := fmt.Sprint("group", i)
		addr := web(t, func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, i) })
		w.SetGroup(balance.Group{ID: id, Targets: []balance.Target{{Addr: addr}}, Check: w.group.Check})
		ids, addrs = append(ids, id), append(addrs, addr)
	}
	return ids, addrs
}

func (w *world) weigh(ids []string, weights []int) {
	w.t.Helper()
	rule := balance.Rule{ID: "r"}
	for i, id := range ids {
		rule.Forward = append(rule.Forward, balance.Weighted{Group: id, Weight: weights[i]})
	}
	w.spec.Rules = []balance.Rule{rule}
	w.listen()
}

// asked is which group answers the next request of a connection.
func (p *peer) asked() (n int) {
	p.t.Helper()
	p.say(crlf("GET / HTTP/1.1", "Host: h"))
	resp, body := p.answer("GET")
	if _, err := fmt.Sscan(body, &n); err != nil || resp.StatusCode != 200 {
		p.t.Fatalf("got %s %q", resp.Status, body)
	}
	return n
}

// Any thousand requests in a row, wherever they begin.
func TestTheSharesOfAnyThousandRequestsAreKept(t *testing.T) {
	const window = 1000
	for _, weights := range [][]int{{900, 100}, {999, 1}, {500, 500}, {1, 2}, {333, 333, 334}, {1, 10, 989}, {200, 200, 200, 200, 200}, {700, 0, 300}, {0, 7}, {999, 998}} {
		w := carry(t, balance.Listener{})
		ids, _ := groups(t, w, len(weights))
		w.weigh(ids, weights)
		sum := 0
		for _, n := range weights {
			sum += n
		}
		p := w.dial()
		var picks [2 * window]int
		count := make([]int, len(weights))
		for i := range picks {
			picks[i] = p.asked()
			count[picks[i]]++
			if i >= window {
				count[picks[i-window]]--
			}
			for g, n := range weights {
				want := float64(window) * float64(n) / float64(sum)
				if i >= window-1 && (float64(count[g]) < want-1 || float64(count[g]) > want+1) {
					t.Fatalf("weights %v: the thousand before request %d went %v", weights, i+1, count)
				}
			}
		}
	}
}

// So are those of many clients at once.
func TestTheSharesOfManyClientsAreKept(t *testing.T) {
	w := carry(t, balance.Listener{})
	ids, _ := groups(t, w, 3)
	w.weigh(ids, []int{700, 250, 50})
	var count [3]atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		p := w.dial()
		clients.Go(func() {
			for range 250 {
				count[p.asked()].Add(1)
			}
		})
	}
	clients.Wait()
	for i, want := range []int64{1400, 500, 100} {
		if got := count[i].Load(); got < want-1 || got > want+1 {
			t.Errorf("group %d had %d, not %d", i, got, want)
		}
	}
}

func TestAWeightHoldsForTheNextRequest(t *testing.T) {
	w := carry(t, balance.Listener{})
	ids, _ := groups(t, w, 2)
	w.weigh(ids, []int{1, 0})
	p := w.dial()
	for i := range 200 {
		w.weigh(ids, []int{1 - i%2, i % 2})
		if got := p.asked(); got != i%2 {
			t.Fatalf("after change %d group %d answered", i, got)
		}
	}
}

// Nothing fails while everything changes that may: a group always has a target
// that lives, and some group a weight.
func TestNothingFailsWhileEverythingChanges(t *testing.T) {
	w := carry(t, balance.Listener{})
	ids, addrs := groups(t, w, 4)
	change := rand.New(rand.NewPCG(7, uint64(len(ids))))
	weights := func() []int {
		out := make([]int, len(ids))
		for i := range out {
			out[i] = change.IntN(1000) * change.IntN(2)
		}
		out[change.IntN(len(out))]++
		return out
	}
	w.weigh(ids, weights())
	var sent, failed atomic.Int64
	var clients sync.WaitGroup
	const enough = 4000
	url := w.url("")
	for i := range 8 {
		c := client(t)
		clients.Go(func() {
			for n := sent.Add(1); n <= enough; n = sent.Add(1) {
				path := fmt.Sprintf("/%d/%d", i, n%3)
				resp, err := c.Get(url + path)
				if err != nil {
					t.Errorf("%s: %v", path, err)
					failed.Add(1)
					continue
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || len(body) != 1 {
					t.Errorf("%s: got %s %q, %v", path, resp.Status, body, err)
					failed.Add(1)
				}
			}
		})
	}
	for before := int64(0); before <= enough && failed.Load() < 10; before = sent.Load() {
		for sent.Load() <= min(before+1, enough) {
			runtime.Gosched()
		}
		switch change.IntN(3) {
		case 0:
			w.weigh(ids, weights())
		case 1: // targets come and go
			g := balance.Group{ID: ids[change.IntN(len(ids))], Check: w.group.Check}
			for _, i := range change.Perm(len(addrs))[:1+change.IntN(len(addrs))] {
				g.Targets = append(g.Targets, balance.Target{Addr: addrs[i], Generation: int64(change.IntN(2))})
			}
			w.SetGroup(g)
		case 2: // rules as well
			rules := w.spec.Rules[len(w.spec.Rules)-1:]
			for i := range change.IntN(3) {
				rules = append([]balance.Rule{{
					ID: fmt.Sprint("path", i), Match: []balance.Condition{{Field: "path-pattern", Values: []string{fmt.Sprintf("/*/%d", i)}}},
					Forward: []balance.Weighted{{Group: ids[change.IntN(len(ids))], Weight: 1}},
				}}, rules...)
			}
			w.spec.Rules = rules
			w.listen()
		}
	}
	clients.Wait()
}
