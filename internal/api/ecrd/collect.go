package ecrd

import (
	"context"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"golang.org/x/sync/errgroup"

	"serin/internal/arn"
	"serin/internal/store"
)

// grace is how long a layer is kept that no image has: a push sends its layers,
// or is told that they are there, and names them in a manifest last. Pushes take
// wall time.
const grace = 15 * time.Minute

// promises are the layers that somebody was told of: "it is there, do not send
// it". Whoever collects holds the lock, so that nobody is told of a layer that
// goes at that moment.
type promises struct {
	mu    sync.Mutex
	since time.Time            // nothing is known of promises before
	made  map[string]time.Time // or until when, if that is later
}

// promise keeps a layer from being collected until a wall time.
func (a *API) promise(scope arn.Scope, repo, digest string, until time.Time) {
	a.promises.mu.Lock()
	defer a.promises.mu.Unlock()
	key := imageKey(scope, repo, digest)
	if until.After(a.promises.made[key]) {
		a.promises.made[key] = until
	}
}

// present finds a layer, and promises it to whoever asks.
func (a *API) present(scope arn.Scope, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	key := imageKey(scope, repo, string(digest))
	a.promises.mu.Lock()
	defer a.promises.mu.Unlock()
	var l layer
	var ok bool
	a.store.View(func(tx *store.Tx) { l, ok = a.layers.Get(tx, key) })
	if !ok {
		return ociregistry.Descriptor{}, ociregistry.ErrBlobUnknown
	}
	if now := time.Now(); now.After(a.promises.made[key]) {
		a.promises.made[key] = now
	}
	return l.descriptor(digest), nil
}

// Collect gives back the space of what no image has, and that was neither pushed
// nor promised since the wall time given. Pushes go on meanwhile.
func (a *API) Collect(before time.Time) (freed int64, err error) {
	if err := a.dropLayers(before); err != nil {
		return 0, err
	}
	wanted := map[ociregistry.Digest]bool{}
	a.store.View(func(tx *store.Tx) {
		for key := range a.layers.Scan(tx, "") {
			_, digest, _ := cutLast(key, "|")
			wanted[ociregistry.Digest(digest)] = true
		}
		for _, i := range a.images.Scan(tx, "") {
			wanted[ociregistry.Digest(i.Digest)] = true
		}
	})
	// What is not wanted now is not wanted later either, unless it is committed
	// again: then it is younger than that.
	return a.blobs.Collect(before, func(digest ociregistry.Digest) bool { return wanted[digest] })
}

// dropLayers takes from repositories the layers that none of their images has.
// While something is being pushed to a repository, what its manifest will name
// stays, however long that takes: what no manifest ever had, and what was
// promised.
func (a *API) dropLayers(before time.Time) error {
	p := &a.promises
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.Before(before) {
		return nil
	}
	return a.store.Update(func(tx *store.Tx) error {
		active := a.blobs.Active(before)
		for key, l := range a.layers.Scan(tx, "") {
			if repo, _, _ := cutLast(key, "|"); !l.Since.Before(before) {
				active[repo] = true
			}
		}
		needed, unknown := map[string]bool{}, map[string]bool{}
		for key, i := range a.images.Scan(tx, "") {
			repo, _, _ := cutLast(key, "|")
			if i.Layers == nil && i.Children == nil { // a manifest that is not understood, or of a program that did not write them down
				unknown[repo] = true
			}
			for _, digest := range i.Layers {
				needed[repo+"|"+digest] = true
			}
		}
		for key, l := range a.layers.Scan(tx, "") {
			repo, _, _ := cutLast(key, "|")
			until, promised := p.made[key]
			switch {
			case needed[key], unknown[repo], !l.Since.Before(before), promised && !until.Before(before):
			case active[repo] && (promised || !l.Named):
			default:
				a.layers.Delete(tx, key)
			}
		}
		for key, until := range p.made {
			if repo, _, _ := cutLast(key, "|"); until.Before(before) && !active[repo] {
				delete(p.made, key)
			}
		}
		return nil
	})
}

// reclaim gives back what nobody needs any longer. Uploads that nobody goes on
// with for as long as patience are dropped.
func (a *API) reclaim(patience time.Duration) {
	a.blobs.Expire(time.Now().Add(-patience))
	freed, err := a.Collect(time.Now().Add(-grace))
	if err != nil {
		a.log.Error("collecting the registry's garbage", "error", err)
	} else if freed > 0 {
		a.log.Info("the registry's garbage is collected", "bytes", freed)
	}
}

// abandoned is how long an upload is kept that nobody goes on with; ECR keeps its
// own for a day. When there is no room it is the grace.
const abandoned = 24 * time.Hour

// collectEvery is the wall time between two looks for garbage.
const collectEvery = 5 * time.Minute

// Run collects garbage, in wall time, and performs lifecycle policies, in stage
// time, until ctx ends.
func (a *API) Run(ctx context.Context) error {
	defer a.end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		tick := time.NewTicker(collectEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				a.reclaim(abandoned)
			}
		}
	})
	g.Go(func() error {
		wake := make(chan struct{}, 1)
		defer a.store.Watch(wake, a.repositories)()
		for {
			if _, err := a.clock.Wait(ctx, a.sweep(), wake); err != nil {
				return nil
			}
		}
	})
	return g.Wait()
}
