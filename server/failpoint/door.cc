#include "conclave/server/failpoint/door.h"

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::failpoint {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr std::chrono::seconds kConnectionTimeout{10};

DoorAnswer Failed(const absl::Status& status) {
  return {absl::IsNotFound(status) ? 404 : 400, absl::StrCat(std::string(status.message()), "\n"),
          nullptr};
}

DoorAnswer Put(std::string_view name, std::string_view body, Registry* registry) {
  if (name == "failpoints") {
    // Into a registry that nobody uses, to see whether it is right.
    const absl::Status status = Registry({}).ArmAll(body);
    if (!status.ok()) return Failed(status);
    return {204, "", [registry, body = std::string(body)] {
              static_cast<void>(registry->ArmAll(body));  // it was right
            }};
  }
  if (const absl::Status status = Registry::CheckName(name); !status.ok()) return Failed(status);
  auto terms = Terms::Parse(body);
  if (!terms.ok()) return Failed(terms.status());
  return {204, "", [registry, name = std::string(name), terms = *std::move(terms)] {
            registry->Arm(name, terms);
          }};
}

class OpenDoor final : public Door {
 public:
  OpenDoor(tcp::endpoint endpoint, Registry* registry)
      : acceptor_(context_, endpoint), registry_(registry) {
    Accept();
    thread_ = std::thread([this] { context_.run(); });
  }
  ~OpenDoor() override {
    context_.stop();
    thread_.join();
  }
  uint16_t port() const override { return acceptor_.local_endpoint().port(); }

 private:
  struct Connection {
    explicit Connection(tcp::socket socket) : stream(std::move(socket)) {
      request.body_limit(kBodyBytesMax);
    }
    beast::tcp_stream stream;
    beast::flat_buffer buffer{kBodyBytesMax};
    http::request_parser<http::string_body> request;
    http::response<http::string_body> response;
    std::function<void()> then;
  };

  void Accept() {
    acceptor_.async_accept([this](boost::system::error_code error, tcp::socket socket) {
      if (!error) Read(std::make_shared<Connection>(std::move(socket)));
      if (acceptor_.is_open()) Accept();
    });
  }

  void Read(std::shared_ptr<Connection> connection) {
    Connection& c = *connection;
    c.stream.expires_after(kConnectionTimeout);
    http::async_read(c.stream, c.buffer, c.request,
                     [this, connection](boost::system::error_code error, size_t) {
                       if (!error) Write(connection);
                     });
  }

  void Write(std::shared_ptr<Connection> connection) {
    Connection& c = *connection;
    const auto& request = c.request.get();
    const auto text = [](beast::string_view view) {
      return std::string_view(view.data(), view.size());
    };
    DoorAnswer answer =
        Answer(text(request.method_string()), text(request.target()), request.body(), registry_);
    c.response.result(static_cast<unsigned>(answer.status));
    c.response.keep_alive(false);
    c.response.body() = std::move(answer.body);
    c.response.prepare_payload();
    c.then = std::move(answer.then);
    http::async_write(c.stream, c.response, [connection](boost::system::error_code, size_t) {
      // The answer's end says that it is in effect.
      if (connection->then) connection->then();
      boost::system::error_code ignored;
      connection->stream.socket().shutdown(tcp::socket::shutdown_both, ignored);
    });
  }

  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  Registry* const registry_;
  std::thread thread_;
};

}  // namespace

DoorAnswer Answer(std::string_view method, std::string_view target, std::string_view body,
                  Registry* registry) {
  const bool count = target.ends_with("/count");
  if (count) target.remove_suffix(std::string_view("/count").size());
  const size_t slash = target.rfind('/');
  const std::string_view name = slash == std::string_view::npos ? target : target.substr(slash + 1);
  if (method == "PUT" && !count) return Put(name, body, registry);
  if (method == "DELETE" && !count) {
    if (registry->Disarm(name)) return {204, "", nullptr};
    return {404, "the failpoint is not armed\n", nullptr};
  }
  if (method != "GET") return {405, "GET, PUT and DELETE are understood\n", nullptr};
  if (name.empty()) return {200, registry->List(), nullptr};
  const auto terms = registry->TermsOf(name);
  if (!terms.has_value()) return {404, "the failpoint is not armed\n", nullptr};
  return {200, absl::StrCat(count ? absl::StrCat(registry->EvaluationsOf(name)) : *terms, "\n"),
          nullptr};
}

absl::StatusOr<std::unique_ptr<Door>> Door::Open(std::string_view host_port, Registry* registry) {
  const size_t colon = host_port.rfind(':');
  if (colon == std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(host_port), "\" must be host:port"));
  }
  try {
    asio::io_context context;
    tcp::resolver resolver(context);
    const auto found =
        resolver.resolve(std::string(host_port.substr(0, colon)),
                         std::string(host_port.substr(colon + 1)), tcp::resolver::passive);
    return std::unique_ptr<Door>(new OpenDoor(found.begin()->endpoint(), registry));
  } catch (const boost::system::system_error& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve failpoints at ", std::string(host_port), ": ", error.what()));
  }
}

}  // namespace conclave::failpoint
