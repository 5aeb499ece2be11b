// A service in Go with Debian's clientv3, for tests of how it gets on with us. Talks by lines: it prints what it did,
// and a line on its standard input tells it to go on.
//
//	go-client kv ENDPOINTS
//	go-client lock ENDPOINTS NAME            prints "locked REVISION"; unlocks at the next line
//	go-client count ENDPOINTS NAME ROUNDS    adds one to the number in the key NAME-counter, under the lock, ROUNDS times;
//	                                         prints "counted NUMBER"
//	go-client campaign ENDPOINTS NAME VALUE  prints "leader REVISION"; resigns at the next line
//	go-client observe ENDPOINTS NAME         prints the value of each leader
//	go-client register ENDPOINTS SERVICE ADDRESS METADATA   deregisters at the next line
//	go-client remove ENDPOINTS SERVICE ADDRESS   deletes that endpoint, whoever's it is
//	go-client endpoints ENDPOINTS SERVICE    prints KEY ADDRESS METADATA for each endpoint
//	go-client follow ENDPOINTS SERVICE       prints "add KEY ADDRESS" and "delete KEY" as they happen
//	go-client put ENDPOINTS KEY VALUE
//	go-client denied ENDPOINTS KEY           KEY must be refused in every way, by etcd's own error
//	go-client call ENDPOINTS SERVICE METHOD N   N calls over etcd's resolver with round robin; prints each reply
//
// GO_CLIENT_USER, _PASSWORD, _CACERT, _CERT and _KEY in the environment say who the client is and how it is secured.
// With GO_CLIENT_NAMESPACE in the environment everything happens within that prefix (clientv3/namespace).
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/clientv3/namespace"
	"go.etcd.io/etcd/clientv3/naming/endpoints"
	"go.etcd.io/etcd/clientv3/naming/resolver"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

const (
	sessionSeconds = 5
	callTimeout    = 20 * time.Second
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-client:", err)
		os.Exit(1)
	}
}

func expect(condition bool, what string, detail ...interface{}) {
	if !condition {
		fmt.Fprintln(os.Stderr, "go-client: expected", what, detail)
		os.Exit(1)
	}
}

func waitForLine() {
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func kv(client *clientv3.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	put, err := client.Put(ctx, "go/a", "1")
	check(err)
	watch := client.Watch(ctx, "go/", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision),
		clientv3.WithPrevKV())
	_, err = client.Put(ctx, "go/b", "2")
	check(err)
	got, err := client.Get(ctx, "go/", clientv3.WithPrefix(),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	check(err)
	expect(len(got.Kvs) == 2 && string(got.Kvs[0].Key) == "go/b", "two keys, the last first", got)
	txn, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("go/a"), "=", "1"), clientv3.Compare(clientv3.Version("go/b"), "=", 1)).
		Then(clientv3.OpPut("go/a", "3"), clientv3.OpDelete("go/b"), clientv3.OpGet("go/a")).
		Else(clientv3.OpGet("go/b")).Commit()
	check(err)
	expect(txn.Succeeded && string(txn.Responses[2].GetResponseRange().Kvs[0].Value) == "3", "a transaction", txn)
	var events []string
	for len(events) < 4 {
		response, ok := <-watch
		expect(ok && response.Err() == nil, "a watch response", response.Err())
		for _, event := range response.Events {
			events = append(events, fmt.Sprintf("%v %s", event.Type, event.Kv.Key))
		}
	}
	expect(strings.Join(events, ", ") == "PUT go/a, PUT go/b, PUT go/a, DELETE go/b", "four events", events)
	lease, err := client.Grant(ctx, 60)
	check(err)
	_, err = client.Put(ctx, "go/leased", "x", clientv3.WithLease(lease.ID))
	check(err)
	alive, err := client.KeepAliveOnce(ctx, lease.ID)
	check(err)
	expect(alive.TTL == 60, "a renewed lease", alive)
	_, err = client.Revoke(ctx, lease.ID)
	check(err)
	gone, err := client.Get(ctx, "go/leased")
	check(err)
	expect(gone.Count == 0, "the key gone with its lease", gone)
	_, err = client.Compact(ctx, put.Header.Revision)
	check(err)
	fmt.Println("ok")
}

func lock(client *clientv3.Client, name string) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(sessionSeconds))
	check(err)
	mutex := concurrency.NewMutex(session, name)
	check(mutex.Lock(context.Background()))
	fmt.Println("locked", mutex.Header().Revision)
	waitForLine()
	check(mutex.Unlock(context.Background()))
	fmt.Println("unlocked")
	check(session.Close())
}

func count(client *clientv3.Client, name string, rounds int) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(sessionSeconds))
	check(err)
	mutex, counter, number := concurrency.NewMutex(session, name), name+"-counter", 0
	for i := 0; i < rounds; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), 3*callTimeout)
		check(mutex.Lock(ctx))
		got, err := client.Get(ctx, counter)
		check(err)
		number = 0
		if len(got.Kvs) == 1 {
			number, err = strconv.Atoi(string(got.Kvs[0].Value))
			check(err)
		}
		number++
		put, err := client.Txn(ctx).If(mutex.IsOwner()).Then(clientv3.OpPut(counter, strconv.Itoa(number))).Commit()
		check(err)
		expect(put.Succeeded, "to be the owner still")
		check(mutex.Unlock(ctx))
		cancel()
	}
	fmt.Println("counted", number)
	check(session.Close())
}

func campaign(client *clientv3.Client, name, value string) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(sessionSeconds))
	check(err)
	election := concurrency.NewElection(session, name)
	check(election.Campaign(context.Background(), value))
	fmt.Println("leader", election.Rev())
	waitForLine()
	check(election.Resign(context.Background()))
	fmt.Println("resigned")
	check(session.Close())
}

func observe(client *clientv3.Client, name string) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(sessionSeconds))
	check(err)
	for response := range concurrency.NewElection(session, name).Observe(context.Background()) {
		fmt.Println(string(response.Kvs[0].Value))
	}
}

func register(client *clientv3.Client, service, address, metadata string) {
	manager, err := endpoints.NewManager(client, service)
	check(err)
	key := service + "/" + address
	check(manager.AddEndpoint(context.Background(), key, endpoints.Endpoint{Addr: address, Metadata: metadata}))
	fmt.Println("registered")
	waitForLine()
	check(manager.DeleteEndpoint(context.Background(), key))
	fmt.Println("deregistered")
}

func remove(client *clientv3.Client, service, address string) {
	manager, err := endpoints.NewManager(client, service)
	check(err)
	check(manager.DeleteEndpoint(context.Background(), service+"/"+address))
	fmt.Println("removed")
}

func follow(client *clientv3.Client, service string) {
	manager, err := endpoints.NewManager(client, service)
	check(err)
	channel, err := manager.NewWatchChannel(context.Background())
	check(err)
	fmt.Println("following")
	for updates := range channel {
		for _, update := range updates {
			if update.Op == endpoints.Add {
				fmt.Println("add", update.Key, update.Endpoint.Addr)
			} else {
				fmt.Println("delete", update.Key)
			}
		}
	}
}

func list(client *clientv3.Client, service string) {
	manager, err := endpoints.NewManager(client, service)
	check(err)
	found, err := manager.List(context.Background())
	check(err)
	var lines []string
	for key, endpoint := range found {
		metadata, err := json.Marshal(endpoint.Metadata)
		check(err)
		lines = append(lines, fmt.Sprintf("%s %s %s", key, endpoint.Addr, metadata))
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
}

// raw writes a string as a message of one string field, number 1, and reads the last of a message's string fields: enough
// for a greeter, whose reply ends with who answered.
type raw struct{}

func (raw) Name() string { return "raw" }
func (raw) Marshal(v interface{}) ([]byte, error) {
	text := *v.(*string)
	return append([]byte{0x0a, byte(len(text))}, text...), nil
}
func (raw) Unmarshal(data []byte, v interface{}) error {
	for rest := data; len(rest) > 0; {
		if len(rest) < 2 || rest[0]&7 != 2 || rest[1] > 127 || len(rest) < 2+int(rest[1]) {
			return fmt.Errorf("not a message of short strings: %q", data)
		}
		*v.(*string) = string(rest[2 : 2+int(rest[1])])
		rest = rest[2+int(rest[1]):]
	}
	return nil
}

func call(client *clientv3.Client, service, method string, count int) {
	builder, err := resolver.NewBuilder(client)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	connection, err := grpc.DialContext(ctx, "etcd:///"+service, grpc.WithResolvers(builder), grpc.WithInsecure(),
		grpc.WithBlock(), grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy":"round_robin"}`))
	check(err)
	for i := 0; i < count; i++ {
		request, reply := "go", ""
		check(connection.Invoke(ctx, method, &request, &reply, grpc.ForceCodec(raw{}), grpc.WaitForReady(true)))
		fmt.Println(reply)
	}
}

func denied(client *clientv3.Client, key string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, err := client.Put(ctx, key, "x")
	expect(err == rpctypes.ErrPermissionDenied, "a put that is denied", err)
	_, err = client.Get(ctx, key, clientv3.WithFromKey())
	expect(err == rpctypes.ErrPermissionDenied, "a range that is denied", err)
	_, err = client.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("go/a", "x")},
		[]clientv3.Op{clientv3.OpGet("go/a")}), clientv3.OpDelete(key)).Commit()
	expect(err == rpctypes.ErrPermissionDenied, "a transaction that is denied", err)
	_, err = client.UserList(ctx)
	expect(err == rpctypes.ErrPermissionDenied, "a list of users that is denied", err)
	response := <-client.Watch(ctx, key)
	expect(response.Canceled && strings.Contains(response.Err().Error(), "permission denied"),
		"a watch that is denied", response)
	fmt.Println("denied")
}

// What the environment says of user and certificates.
func config(endpoints []string) clientv3.Config {
	config := clientv3.Config{Endpoints: endpoints, DialTimeout: callTimeout,
		Username: os.Getenv("GO_CLIENT_USER"), Password: os.Getenv("GO_CLIENT_PASSWORD")}
	if authority := os.Getenv("GO_CLIENT_CACERT"); authority != "" {
		pem, err := os.ReadFile(authority)
		check(err)
		config.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		expect(config.TLS.RootCAs.AppendCertsFromPEM(pem), "certificates in", authority)
		if cert := os.Getenv("GO_CLIENT_CERT"); cert != "" {
			own, err := tls.LoadX509KeyPair(cert, os.Getenv("GO_CLIENT_KEY"))
			check(err)
			config.TLS.Certificates = []tls.Certificate{own}
		}
	}
	return config
}

func main() {
	args := os.Args[1:]
	expect(len(args) >= 2, "a command and endpoints")
	client, err := clientv3.New(config(strings.Split(args[1], ",")))
	check(err)
	defer client.Close()
	if space := os.Getenv("GO_CLIENT_NAMESPACE"); space != "" {
		client.KV = namespace.NewKV(client.KV, space)
		client.Watcher = namespace.NewWatcher(client.Watcher, space)
		client.Lease = namespace.NewLease(client.Lease, space)
	}
	switch command := args[0]; {
	case command == "kv" && len(args) == 2:
		kv(client)
	case command == "lock" && len(args) == 3:
		lock(client, args[2])
	case command == "count" && len(args) == 4:
		rounds, err := strconv.Atoi(args[3])
		check(err)
		count(client, args[2], rounds)
	case command == "campaign" && len(args) == 4:
		campaign(client, args[2], args[3])
	case command == "observe" && len(args) == 3:
		observe(client, args[2])
	case command == "register" && len(args) == 5:
		register(client, args[2], args[3], args[4])
	case command == "remove" && len(args) == 4:
		remove(client, args[2], args[3])
	case command == "follow" && len(args) == 3:
		follow(client, args[2])
	case command == "endpoints" && len(args) == 3:
		list(client, args[2])
	case command == "denied" && len(args) == 3:
		denied(client, args[2])
	case command == "put" && len(args) == 4:
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		_, err := client.Put(ctx, args[2], args[3])
		check(err)
	case command == "call" && len(args) == 5:
		count, err := strconv.Atoi(args[4])
		check(err)
		call(client, args[2], args[3], count)
	default:
		fmt.Fprintln(os.Stderr, "go-client: unknown command or wrong number of arguments:", args)
		os.Exit(2)
	}
}
