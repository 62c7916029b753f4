// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Dispatcher runs a command, such as crunch-run, for each container that it gets from Arvados.
//
// The queue says what to try, and Arvados alone decides: who locks a container has it. So nothing is lost
// where the queue is late, empty for a while or made anew, nor where the dispatcher itself begins anew:
// what its token has locked is its own; so each dispatcher has a token of its own. What it has locked with
// a token of before stays its own while it runs. That a container is not in the queue ends nothing by itself.
type Dispatcher struct {
	Command []string // the container's uuid is its last argument
	Slots   int
	api     api
	me      map[string]bool // uuids of its tokens, which Arvados notes as locked_by_uuid
	running map[string]*exec.Cmd
	over    map[string]bool      // processes that have ended, whose containers have to be looked at
	refused map[string]time.Time // the state of a container in which Arvados did not let us lock it
	ended   chan string
}

// Follow dispatches for ever.
func (d *Dispatcher) Follow(c *Connection, host string, reconcile time.Duration) error {
	d.api, d.me = api{host: host, client: http.Client{Timeout: 30 * time.Second}}, map[string]bool{}
	d.running, d.over = map[string]*exec.Cmd{}, map[string]bool{}
	d.refused, d.ended = map[string]time.Time{}, make(chan string)
	queue := Queue{Changed: make(chan struct{}, 1)}
	go queue.Follow(c, reconcile, func([]byte) {})
	<-queue.Changed // all that there was has come
	for {
		d.pass(&queue)
		select {
		case <-queue.Changed:
		case uuid := <-d.ended:
			delete(d.running, uuid)
			d.over[uuid] = true
		case <-time.After(2 * time.Second): // what Arvados could not do is tried again
		}
	}
}

func (d *Dispatcher) pass(queue *Queue) {
	if len(d.refused) > 1000 {
		d.refused = map[string]time.Time{} // asked once more
	}
	d.api.token = tokenNow() // one for the whole pass: who locks a container starts it
	d.me[uuidOf(d.api.token)] = true
	mine, waiting := queue.Of(d.me), queue.Next(d.Slots+len(d.refused)+len(d.running))
	for uuid := range d.over {
		d.settle(uuid)
	}
	for uuid, container := range mine {
		d.keep(uuid, container)
	}
	for uuid := range d.running {
		if _, listed := mine[uuid]; !listed {
			d.look(uuid)
		}
	}
	for _, container := range waiting {
		if len(d.running) < d.Slots && d.running[container.UUID] == nil && !d.over[container.UUID] {
			d.take(container)
		}
	}
}

// take locks a container and starts its process, unless somebody was faster or Arvados says no.
func (d *Dispatcher) take(container Container) {
	uuid := container.UUID
	if at, was := d.refused[uuid]; was && at.Equal(container.ModifiedAt) {
		return
	}
	err := d.api.call("POST", "containers/"+uuid+"/lock", nil, nil)
	var no *refusal
	switch {
	case errors.As(err, &no):
		d.refused[uuid] = container.ModifiedAt
		log.Print("* not locked: ", uuid, ": ", err)
	case err != nil:
		log.Print("* error: ", err)
	default:
		delete(d.refused, uuid)
		d.start(uuid)
	}
}

// keep looks after a container that is ours: also one of before we began.
func (d *Dispatcher) keep(uuid string, container Container) {
	process := d.running[uuid]
	switch {
	case d.over[uuid]: // the queue does not know yet
	case container.priority.Sign() <= 0 && process != nil:
		log.Print("* stop: ", uuid)
		process.Process.Signal(syscall.SIGTERM)
	case process != nil:
	case container.State == "Running" || container.priority.Sign() <= 0 || container.LockedByUUID != uuidOf(d.api.token):
		d.settle(uuid) // its process is none of ours: we began anew
	case container.State == "Locked" && len(d.running) < d.Slots:
		found, err := d.api.get(uuid)
		if err == nil && found.State == "Locked" && found.LockedBy == container.LockedByUUID {
			d.start(uuid)
		}
	}
}

func (d *Dispatcher) start(uuid string) {
	process := exec.Command(d.Command[0], append(d.Command[1:], uuid)...)
	process.Stdout, process.Stderr = os.Stdout, os.Stderr
	process.Env = append(os.Environ(), "ARVADOS_API_TOKEN="+d.api.token)
	if err := process.Start(); err != nil {
		log.Print("* error: ", err)
		d.over[uuid] = true
		return
	}
	log.Print("* start: ", uuid)
	d.running[uuid] = process
	go func() {
		process.Wait()
		d.ended <- uuid
	}()
}

// look at a container that is not in the queue while its process runs: it may be over, or the queue anew.
func (d *Dispatcher) look(uuid string) {
	if found, err := d.api.get(uuid); err == nil && found.State != "Locked" && found.State != "Running" {
		d.running[uuid].Process.Signal(syscall.SIGTERM)
	}
}

// settle gives back or cancels a container whose process is gone.
func (d *Dispatcher) settle(uuid string) {
	found, err := d.api.get(uuid)
	if err == nil && d.me[found.LockedBy] {
		switch {
		case found.State == "Locked" && found.LockedBy == uuidOf(d.api.token):
			err = d.api.call("POST", "containers/"+uuid+"/unlock", nil, nil)
		case found.State == "Locked" || found.State == "Running": // nobody unlocks what another token has
			cancelled := map[string]any{"container": map[string]any{"state": "Cancelled"}}
			err = d.api.call("PUT", "containers/"+uuid, cancelled, nil)
		}
	}
	var no *refusal
	if err == nil || errors.As(err, &no) {
		delete(d.over, uuid)
		log.Print("* settled: ", uuid)
	}
}

type found struct {
	State    string `json:"state"`
	LockedBy string `json:"locked_by_uuid"`
}

type api struct {
	host, token string
	client      http.Client
}

// refusal is an answer that stays the same if it is asked for again.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

func (a *api) get(uuid string) (found, error) {
	var answer found
	err := a.call("GET", "containers/"+uuid, nil, &answer)
	return answer, err
}

func (a *api) call(method, path string, body, answer any) error {
	var payload []byte
	if body != nil {
		payload, _ = json.Marshal(body)
	}
	request, err := http.NewRequest(method, a.host+"/arvados/v1/"+path, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	switch {
	case err != nil:
		return err
	case response.StatusCode >= 500 || response.StatusCode == 429:
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	case response.StatusCode >= 400:
		return &refusal{fmt.Sprintf("%s: %.200s", response.Status, text)}
	case answer != nil:
		return json.Unmarshal(text, answer)
	}
	return nil
}
