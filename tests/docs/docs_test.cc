// Each C++ block of docs/ compiles; each that is a whole example runs, against a server of its own.
#include <gtest/gtest.h>

#include <cctype>
#include <memory>
#include <string>

#include "conclave/server/app/embedded.h"
#include "conclave/tests/docs/examples.h"

namespace conclave::docs {

std::vector<Example>& Examples() {
  static std::vector<Example> examples;
  return examples;
}

namespace {

class DocsTest : public testing::TestWithParam<Example> {};

TEST_P(DocsTest, Runs) {
  auto server = EmbeddedServer::Start({});
  ASSERT_TRUE(server.ok()) << server.status();
  auto client = Client::Connect({.endpoints = {(*server)->client_endpoint()}});
  ASSERT_TRUE(client.ok()) << client.status();
  const absl::Status status = GetParam().run(*client);
  EXPECT_TRUE(status.ok()) << GetParam().page << ", " << GetParam().name << ": " << status;
}

std::string NameOf(const testing::TestParamInfo<Example>& info) {
  std::string page = info.param.page.substr(0, info.param.page.find('.'));
  for (char& c : page) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return page + "_" + std::to_string(info.index) + "_" + info.param.name;
}

// Evaluated when main has begun, so after the static initialisers of the pages have registered all.
INSTANTIATE_TEST_SUITE_P(Pages, DocsTest, testing::ValuesIn(Examples()), NameOf);

}  // namespace
}  // namespace conclave::docs
