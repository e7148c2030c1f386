package elbd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"serin/internal/arn"
	"serin/internal/balance"
	"serin/internal/clock"
	"serin/internal/store"
)

// Run makes the balancer match the rows until ctx ends, and writes back what
// it sees: where listeners listen, which weights are in force, which targets
// are healthy, which have drained. It looks at what changed, here or there.
func (a *API) Run(ctx context.Context) error {
	feed := a.store.Follow(a.wake, a.balancers, a.listeners, a.rules, a.groups, a.deps.Certificates.Table())
	defer feed.Stop()
	defer a.logs.close()
	again := map[string]time.Time{}
	w := work{map[string]bool{}, map[string]bool{}}
	for keys := append(feed.Take(), a.observed()...); ; keys = feed.Take() {
		a.add(w, keys)
		if err := a.sync(w, again); err != nil {
			return fmt.Errorf("bringing the load balancers to their rows: %w", err)
		}
		if len(w.groups) > 0 {
			continue
		}
		var next time.Time
		for _, at := range again {
			next = clock.Sooner(next, at)
		}
		if _, err := a.clock.Wait(ctx, next, a.wake); err != nil {
			return nil
		}
	}
}

// saw is told by the balancer that there is news of a group.
func (a *API) saw(group string) {
	a.changedMu.Lock()
	a.changed[group] = true
	a.changedMu.Unlock()
	clock.Poke(a.wake)
}

// observed is the rows of what was seen before the stage began: what they are of
// may be gone.
func (a *API) observed() (keys []store.Key) {
	a.store.View(func(tx *store.Tx) {
		for key := range a.bound.Scan(tx, "") {
			keys = append(keys, store.Key{Table: a.bound, Row: key})
		}
		for key := range a.health.Scan(tx, "") {
			keys = append(keys, store.Key{Table: a.health, Row: key})
		}
	})
	return keys
}

// work is the listeners and groups to be looked at, by ARN.
type work struct{ listeners, groups map[string]bool }

// groupsAtOnce is how many groups are looked at before listeners are again: a
// shift of traffic does not wait for the health of everybody.
const groupsAtOnce = 64

// tryAgain is after how long a listener that could not listen tries again.
const tryAgain = 5 * time.Second

// add adds what changed rows, and what the balancer saw, ask to be looked at.
func (a *API) add(w work, keys []store.Key) {
	a.changedMu.Lock()
	maps.Copy(w.groups, a.changed)
	clear(a.changed)
	a.changedMu.Unlock()
	a.store.View(func(tx *store.Tx) {
		for _, k := range keys {
			_, name := arn.ParseKey(k.Row)
			switch k.Table {
			case a.balancers, a.deps.Certificates.Table():
				for _, l := range a.listenersBy.Scan(tx, name) {
					w.listeners[l.ARN] = true
				}
			case a.listeners, a.bound:
				w.listeners[name] = true
			case a.rules:
				w.listeners[listenerOf(name)] = true
			case a.groups, a.health:
				w.groups[name] = true
			}
		}
	})
}

// take takes all listeners out of the work, and some groups.
func (w work) take() (some work) {
	some = work{maps.Clone(w.listeners), map[string]bool{}}
	clear(w.listeners)
	for group := range w.groups {
		if len(some.groups) == groupsAtOnce {
			break
		}
		some.groups[group] = true
		delete(w.groups, group)
	}
	return some
}

// listenerOf is the ARN of the listener that a rule's ARN names.
func listenerOf(ruleARN string) string {
	name := strings.Replace(ruleARN, ":listener-rule/", ":listener/", 1)
	return name[:strings.LastIndexByte(name, '/')]
}

// rulePrefix is how the ARNs of a listener's rules begin.
func rulePrefix(listenerARN string) string {
	return strings.Replace(listenerARN, ":listener/", ":listener-rule/", 1) + "/"
}

// sync is one pass over some of the work: rows to balancer, balancer to rows. It
// keeps when a group or a listener is to be looked at again: when the time of a
// draining target is over, or after a listener could not listen.
func (a *API) sync(all work, again map[string]time.Time) error {
	now := a.clock.Now()
	for name, at := range again {
		if at.After(now) {
			continue
		}
		delete(again, name)
		if strings.Contains(name, ":listener/") {
			all.listeners[name] = true
		} else {
			all.groups[name] = true
		}
	}
	w := all.take()
	places, weights := map[string]bound{}, map[string]applied{}
	a.store.View(func(tx *store.Tx) {
		for groupARN := range w.groups {
			if g, ok := a.groups.Get(tx, keyOf(groupARN)); ok {
				a.setGroup(tx, g)
			} else {
				a.balance.RemoveGroup(groupARN)
			}
		}
		a.removeGone(tx, w.listeners)
		for listenerARN := range w.listeners {
			place, ok := a.setListener(tx, listenerARN, weights)
			if ok {
				places[listenerARN] = place
			} else if _, wanted := a.listeners.Get(tx, keyOf(listenerARN)); wanted {
				again[listenerARN] = now.Add(tryAgain)
			}
		}
	})
	return a.store.UpdateFirst(func(tx *store.Tx) error {
		for listenerARN := range w.listeners {
			keep(tx, a.bound, listenerARN, places)
			for key := range a.applied.Scan(tx, keyOf(rulePrefix(listenerARN))) {
				_, name := arn.ParseKey(key)
				if _, stays := weights[name]; !stays {
					a.applied.Delete(tx, key)
				}
			}
		}
		for ruleARN := range weights {
			keep(tx, a.applied, ruleARN, weights)
		}
		states := map[string]health{}
		for groupARN := range w.groups {
			delete(again, groupARN)
			if g, ok := a.groups.Get(tx, keyOf(groupARN)); ok { // as it is now
				live := a.balance.Health(groupARN)
				if due := a.finishDraining(tx, &g, live, now); !due.IsZero() {
					again[groupARN] = due
				}
				states[groupARN] = health{healthRows(g, live)}
			}
			keep(tx, a.health, groupARN, states)
		}
		return nil
	})
}

// removeGone removes the listeners that have no row, before others are made: they may
// want their ports.
func (a *API) removeGone(tx *store.Tx, listeners map[string]bool) {
	for listenerARN := range listeners {
		if _, wanted := a.listeners.Get(tx, keyOf(listenerARN)); !wanted {
			a.balance.RemoveListener(listenerARN)
		}
	}
}

// setListener makes a listener of the balancer as its rows say, or removes it. It
// adds the weights that are in force now.
func (a *API) setListener(tx *store.Tx, listenerARN string, weights map[string]applied) (bound, bool) {
	l, ok := a.listeners.Get(tx, keyOf(listenerARN))
	lb, has := a.balancers.Get(tx, keyOf(l.LoadBalancer))
	if !ok || !has {
		a.balance.RemoveListener(listenerARN)
		return bound{}, false
	}
	rules := a.rulesOf(tx, listenerARN)
	spec := a.listenerSpec(tx, lb, l, rules)
	for _, r := range rules {
		for _, to := range r.Forward { // it must know where it forwards to
			if g, ok := a.groups.Get(tx, keyOf(to.Group)); ok && !a.balance.Knows(to.Group) {
				a.setGroup(tx, g)
			}
		}
	}
	addr, err := a.balance.SetListener(spec)
	if errors.Is(err, net.ErrClosed) { // the stage ends, and the rows stay as they are for the next
		for _, r := range rules {
			if was, ok := a.applied.Get(tx, keyOf(r.ARN)); ok {
				weights[r.ARN] = was
			}
		}
		return a.bound.Get(tx, keyOf(listenerARN))
	}
	if err != nil {
		a.balance.Log.Error("a listener cannot listen", "listener", listenerARN, "err", err)
		return bound{}, false
	}
	for _, r := range rules {
		weights[r.ARN] = applied{r.Forward}
		if was, _ := a.applied.Get(tx, keyOf(r.ARN)); !slices.Equal(was.Forward, r.Forward) {
			a.balance.Log.Debug("weights in force", "rule", r.ARN)
		}
	}
	return bound{addr.String()}, true
}

// listenerSpec is a listener in the balancer's words.
func (a *API) listenerSpec(tx *store.Tx, lb loadBalancer, l listener, rules []rule) balance.Listener {
	spec := balance.Listener{ID: l.ARN, Bind: fmt.Sprintf("%s:%d", lb.Address, l.Port), TCP: carriesConnections(l.protocol())}
	about := logged{lb, map[string]int{}, func(string) string { return "" }}
	for _, r := range rules {
		spec.Rules = append(spec.Rules, ruleSpec(r))
		about.priorities[r.ARN] = r.Priority
	}
	if encrypted(l.protocol()) {
		spec.TLS, about.chosen = a.showing(tx, l)
	}
	if spec.TCP {
		spec.Idle = inSeconds(connectionListener.value(l.Attributes, tcpIdleAttribute))
		return spec
	}
	spec.Idle, spec.Life, spec.Headers = inSeconds(lb.setting(idleAttribute)), inSeconds(lb.setting(lifeAttribute)), l.headers(lb.headers())
	if lb.on(logsAttribute) {
		spec.Log = func(e *balance.Entry) {
			if err := a.logs.write(about, e); err != nil {
				a.balance.Log.Error("an access log cannot be written", "balancer", lb.ARN, "err", err)
			}
		}
	}
	return spec
}

// keep makes the row of an observation what was seen of its resource, or lets it
// go; a row that is right is not touched, so that nobody is woken for nothing.
func keep[R any](tx *store.Tx, t *store.Table[R], resourceARN string, seen map[string]R) {
	key := keyOf(resourceARN)
	old, had := t.Get(tx, key)
	row, has := seen[resourceARN]
	switch {
	case !has:
		t.Delete(tx, key)
	case !had || !reflect.DeepEqual(old, row):
		t.Put(tx, key, row)
	}
}

// finishDraining lets go of targets whose last request is answered or whose
// delay is over, and returns when the next delay ends.
func (a *API) finishDraining(tx *store.Tx, g *targetGroup, live map[netip.AddrPort]balance.Health, now time.Time) (next time.Time) {
	delay := g.seconds(drainAttribute)
	var still []target
	for _, t := range g.Draining {
		addr, _ := t.addr()
		due := t.At.Add(delay)
		if h, ok := live[addr]; !ok || !h.Draining || h.InFlight == 0 || !due.After(now) {
			continue
		}
		still = append(still, t)
		next = clock.Sooner(next, due)
	}
	if len(still) != len(g.Draining) {
		g.Draining = still
		a.groups.Put(tx, keyOf(g.ARN), *g)
	}
	return next
}

// setGroup makes a group of the balancer as its row says. When the stage has been
// started again, its targets are what they were until they are checked: one that was
// not healthy gets no requests meanwhile.
func (a *API) setGroup(tx *store.Tx, g targetGroup) {
	spec := groupSpec(g)
	if !a.balance.Knows(g.ARN) {
		seen, _ := a.health.Get(tx, keyOf(g.ARN))
		was := map[balance.Target]balance.HealthState{}
		for _, t := range g.Targets {
			h := seen.Targets[endpoint(t.ID, t.Port)]
			if state := balance.HealthState(h.State); h.Registered.Equal(t.At) && (state == balance.Healthy || state == balance.Unhealthy) {
				addr, _ := t.addr()
				was[balance.Target{Addr: addr, Generation: t.At.UnixNano()}] = state
			}
		}
		for i, t := range spec.Targets {
			spec.Targets[i].Was = was[t]
		}
	}
	a.balance.SetGroup(spec)
}

func groupSpec(g targetGroup) balance.Group {
	spec := balance.Group{ID: g.ARN, Check: g.checkSpec(), Version: g.version(), TLS: g.protocol() == overHTTPS}
	g.shape(&spec)
	for _, t := range g.Targets {
		if addr, ok := t.addr(); ok {
			spec.Targets = append(spec.Targets, balance.Target{Addr: addr, Generation: t.At.UnixNano()})
		}
	}
	for _, t := range g.Draining {
		if addr, ok := t.addr(); ok {
			spec.Draining = append(spec.Draining, addr)
		}
	}
	return spec
}

func ruleSpec(r rule) balance.Rule {
	spec := balance.Rule{ID: r.ARN, Match: r.Conditions, Fixed: r.Fixed, Redirect: r.Redirect}
	if r.Sticky {
		spec.Sticky = time.Duration(r.StickyFor) * time.Second
	}
	for _, w := range r.Forward {
		spec.Forward = append(spec.Forward, balance.Weighted{Group: w.Group, Weight: w.Weight})
	}
	return spec
}

// healthRows puts what the balancer saw into ELB's words.
func healthRows(g targetGroup, live map[netip.AddrPort]balance.Health) map[string]Health {
	out := map[string]Health{}
	for _, t := range g.Targets {
		at := endpoint(t.ID, t.Port)
		addr, _ := t.addr()
		h, ok := live[addr]
		if !ok || h.Generation != t.At.UnixNano() {
			continue // not taken up yet
		}
		row := Health{State: "healthy"}
		switch h.State {
		case balance.Unused:
			row = Health{State: "unused", Reason: "Target.NotInUse", Description: "Target group is not configured to receive traffic from the load balancer"}
		case balance.Initial:
			row = Health{State: "initial", Reason: "Elb.InitialHealthChecking", Description: "Initial health checks in progress"}
		case balance.Unhealthy:
			row = Health{State: "unhealthy", Reason: "Target.ResponseCodeMismatch", Description: h.Detail}
			switch h.Detail {
			case "Request timed out":
				row.Reason = "Target.Timeout"
			case "Health checks failed":
				row.Reason = "Target.FailedHealthChecks"
			}
		}
		row.Registered = t.At
		out[at] = row
	}
	return out
}

func endpoint(id string, port int32) string { return fmt.Sprintf("%s:%d", id, port) }

// What ECS asks of the load balancers, in the stage's adapter's words.

// Share is a target group's weight in a rule.
type Share struct {
	Group  string
	Weight int
}

// Weights reads a rule, or a listener's default rule: what is wanted of it and
// what is in force. The error is ELB's own when there is no such rule.
func (a *API) Weights(ruleARN string) (wanted, inForce []Share, err error) {
	a.store.View(func(tx *store.Tx) {
		r, ok := a.ruleOf(tx, ruleARN)
		if !ok {
			err = ruleNotFound()
			return
		}
		wanted = shares(r.Forward)
		if in, ok := a.applied.Get(tx, keyOf(r.ARN)); ok {
			inForce = shares(in.Forward)
		}
	})
	return wanted, inForce, err
}

func shares(in []weighted) []Share {
	var out []Share
	for _, w := range in {
		out = append(out, Share(w))
	}
	return out
}

// SetWeights rewrites the weights of a rule's forward action, or those of a
// listener's default rule.
func (a *API) SetWeights(tx *store.Tx, ruleARN string, weights []Share) error {
	r, ok := a.ruleOf(tx, ruleARN)
	if !ok {
		return ruleNotFound()
	}
	var forward []weighted
	for _, w := range weights {
		forward = append(forward, weighted(w))
	}
	if slices.Equal(r.Forward, forward) {
		return nil
	}
	r.Forward, r.Fixed, r.Redirect = forward, nil, nil
	a.rules.Put(tx, keyOf(r.ARN), r)
	return nil
}

// Group is what ECS knows of a group.
type Group struct {
	Protocol, Type string
	Used           bool // a rule forwards to it
}

// Group is a group, if it exists.
func (a *API) Group(groupARN string) (g Group, exists bool) {
	a.store.View(func(tx *store.Tx) {
		var row targetGroup
		row, exists = a.groups.Get(tx, keyOf(groupARN))
		g = Group{Protocol: row.protocol(), Type: row.Type, Used: len(a.usersOf(tx, groupARN)) > 0}
	})
	return g, exists
}

// Target is a member of a group: an address, or an instance and where it is.
type Target struct {
	ID, Address string
	Port        int32
}

func (t Target) rows() []target {
	if t.ID == t.Address {
		t.Address = ""
	}
	return []target{{ID: t.ID, Address: t.Address, Port: t.Port}}
}

// Register puts a target into a group.
func (a *API) Register(tx *store.Tx, groupARN string, t Target) error {
	return a.alter(tx, groupARN, func(g *targetGroup) error { return a.enlist(tx, g, t.rows()) })
}

// Deregister takes a target out of a group; it drains.
func (a *API) Deregister(tx *store.Tx, groupARN string, t Target) error {
	return a.alter(tx, groupARN, func(g *targetGroup) error {
		g.deregister(t.rows(), a.clock.Now())
		return nil
	})
}

func (a *API) alter(tx *store.Tx, groupARN string, fn func(*targetGroup) error) error {
	g, ok := a.groups.Get(tx, keyOf(groupARN))
	if !ok {
		return groupNotFound(groupARN)
	}
	if err := fn(&g); err != nil {
		return err
	}
	a.groups.Put(tx, keyOf(groupARN), g)
	return nil
}

// HealthOf is the health of a group's targets, by ID:port. A target that
// was registered after the last look is initial, whatever stood at its address
// before; one that drains is draining.
func (a *API) HealthOf(groupARN string) (out map[string]Health) {
	a.store.View(func(tx *store.Tx) { out = a.healthOf(tx, groupARN) })
	return out
}

func (a *API) healthOf(tx *store.Tx, groupARN string) map[string]Health {
	out := map[string]Health{}
	g, _ := a.groups.Get(tx, keyOf(groupARN))
	seen, _ := a.health.Get(tx, keyOf(groupARN))
	for _, t := range g.Draining {
		out[endpoint(t.ID, t.Port)] = drainingHealth
	}
	for _, t := range g.Targets {
		h, ok := seen.Targets[endpoint(t.ID, t.Port)]
		if !ok || !h.Registered.Equal(t.At) {
			h = registeringHealth
		}
		if g.instances() {
			if state := a.deps.Network.State(tx, scopeOf(g.ARN), t.ID); state != "running" {
				h = Health{State: "unused", Reason: "Target.InvalidState", Description: "Target is in the " + cmp.Or(state, "terminated") + " state"}
			}
		}
		out[endpoint(t.ID, t.Port)] = h
	}
	return out
}

// Observations are the tables whose changes ECS must look at.
func (a *API) Observations() []store.AnyTable {
	return []store.AnyTable{a.applied, a.health, a.rules, a.groups}
}

// About is the ARNs of what a row of the observations is about. The default rule of
// a network load balancer's listener is about the listener, too.
func (a *API) About(k store.Key) []string {
	_, name := arn.ParseKey(k.Row)
	if before, path, ok := strings.Cut(name, ":listener-rule/net/"); ok {
		return []string{name, before + ":listener/net/" + path[:strings.LastIndexByte(path, '/')]}
	}
	return []string{name}
}

// Endpoints is every listener's address, by the load balancer's name, for people.
func (a *API) Endpoints() map[string][]string {
	out := map[string][]string{}
	a.store.View(func(tx *store.Tx) {
		for _, l := range a.listeners.Scan(tx, "") {
			lb, ok := a.balancers.Get(tx, keyOf(l.LoadBalancer))
			if b, bound := a.bound.Get(tx, keyOf(l.ARN)); ok && bound {
				out[lb.Name] = append(out[lb.Name], strings.ToLower(l.protocol())+"://"+b.Address)
			}
		}
	})
	return out
}
