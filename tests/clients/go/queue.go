// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Container is a value of the bucket ARVADOS_QUEUE: one that is Queued, Locked or Running.
type Container struct {
	UUID               string         `json:"uuid"`
	State              string         `json:"state"`
	Priority           string         `json:"priority"` // a number that can go beyond 2^53
	LockedByUUID       string         `json:"locked_by_uuid"`
	LockCount          int            `json:"lock_count"`
	AuthUUID           string         `json:"auth_uuid"`
	RuntimeConstraints map[string]any `json:"runtime_constraints"`
	CreatedAt          time.Time      `json:"created_at"`
	ModifiedAt         time.Time      `json:"modified_at"`
	priority           *big.Int
}

// Decision is what a dispatcher would do about a container now.
type Decision struct {
	UUID string `json:"uuid"`
	Do   string `json:"do"` // lock, hold, start, unlock, watch or forget
}

func (c Container) decision() string {
	switch {
	case c.State == "Locked" && c.priority.Sign() <= 0:
		return "unlock"
	case c.State == "Locked":
		return "start"
	case c.State == "Queued" && c.priority.Sign() <= 0:
		return "hold"
	case c.State == "Queued":
		return "lock"
	}
	return "watch" // Running, or a state that a later Arvados has
}

// Queue is the dispatch queue as it is now, for an administrator's token.
type Queue struct {
	sync.Mutex
	Changed    chan struct{} // told after each change, once the whole queue is here
	containers map[string]Container
	decided    map[string]string
	next       string
}

// Follow keeps the queue, and tells each decision when it becomes another. The bucket is watched;
// it is also listed every `reconcile`, since a deletion is told for an hour only.
func (q *Queue) Follow(c *Connection, reconcile time.Duration, tell func([]byte)) error {
	q.Lock()
	q.containers, q.decided = map[string]Container{}, map[string]string{}
	q.Unlock()
	for {
		err := q.watch(c, reconcile, tell)
		log.Print("* queue: ", err)
		select {
		case <-c.Due:
		case <-time.After(2 * time.Second):
		}
	}
}

// watch has the whole queue first, in the order of its last changes, and then every change.
func (q *Queue) watch(c *Connection, reconcile time.Duration, tell func([]byte)) error {
	stream, err := jetstream.New(c.Conn)
	if err != nil {
		return err
	}
	ctx, done := context.WithTimeout(context.Background(), reconcile)
	defer done()
	bucket, err := stream.KeyValue(ctx, "ARVADOS_QUEUE")
	if err != nil {
		return err
	}
	watcher, err := bucket.WatchAll(context.Background())
	if err != nil {
		return err
	}
	defer watcher.Stop()
	listed := map[string]bool{}
	for whole, again := false, time.After(reconcile); ; {
		select {
		case entry, open := <-watcher.Updates():
			switch {
			case !open:
				return fmt.Errorf("the watch has ended")
			case entry == nil: // all that there was has come: what did not is gone
				whole = true
				for uuid := range q.containers {
					if !listed[uuid] {
						q.remove(uuid, tell)
					}
				}
				log.Printf("* caught up: %d containers", len(q.containers))
			case entry.Operation() == jetstream.KeyValuePut:
				listed[entry.Key()] = true
				if err := q.put(entry.Value(), tell); err != nil {
					log.Printf("* left out: %s: %s", entry.Key(), err) // one that nobody can read stops no other
				}
			default:
				q.remove(entry.Key(), tell)
			}
			if whole && len(watcher.Updates()) == 0 { // of many changes at once, after the last
				q.sayNext()
				select {
				case q.Changed <- struct{}{}:
				default:
				}
			}
		case <-again:
			if whole {
				return fmt.Errorf("listing anew")
			}
			again = time.After(reconcile)
		}
	}
}

func (q *Queue) put(value []byte, tell func([]byte)) error {
	var container Container
	if err := json.Unmarshal(value, &container); err != nil {
		return err
	}
	var whole bool
	if container.priority, whole = new(big.Int).SetString(container.Priority, 10); !whole {
		return fmt.Errorf("no priority: %q", container.Priority)
	}
	q.Lock()
	q.containers[container.UUID] = container
	q.Unlock()
	q.decide(container.UUID, container.decision(), tell)
	return nil
}

func (q *Queue) remove(uuid string, tell func([]byte)) {
	if _, known := q.containers[uuid]; known {
		q.Lock()
		delete(q.containers, uuid)
		q.Unlock()
		q.decide(uuid, "forget", tell)
		delete(q.decided, uuid)
	}
}

func (q *Queue) decide(uuid, what string, tell func([]byte)) {
	if q.decided[uuid] == what {
		return
	}
	q.decided[uuid] = what
	line, _ := json.Marshal(Decision{uuid, what})
	tell(line)
}

func (q *Queue) sayNext() {
	if next := q.Next(1); len(next) == 1 && next[0].UUID != q.next {
		q.next = next[0].UUID
		log.Print("* next: ", q.next)
	}
}

// Of is the containers that one of these tokens has locked, by uuid.
func (q *Queue) Of(tokens map[string]bool) map[string]Container {
	q.Lock()
	defer q.Unlock()
	found := map[string]Container{}
	for uuid, container := range q.containers {
		if tokens[container.LockedByUUID] {
			found[uuid] = container
		}
	}
	return found
}

// Next is the queued containers that a dispatcher would lock next, the most urgent first.
func (q *Queue) Next(limit int) []Container {
	var waiting []Container
	q.Lock()
	defer q.Unlock()
	for _, container := range q.containers {
		if container.decision() == "lock" {
			waiting = append(waiting, container)
		}
	}
	slices.SortFunc(waiting, func(a, b Container) int {
		return cmp.Or(b.priority.Cmp(a.priority), a.CreatedAt.Compare(b.CreatedAt))
	})
	return waiting[:min(limit, len(waiting))]
}
