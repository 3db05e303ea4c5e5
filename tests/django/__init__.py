"""Django's promises of sessions, kept on both transports, sync and async.

Each is taken from a sentence of the page "How to use sessions" of Django's documentation
(https://docs.djangoproject.com/en/5.2/topics/http/sessions/) and stands under the heading of that
page, so that one may be read beside the other. Where a header session differs from what the page
says, and means to, the test says how; ``DIFFERS`` marks the place.

======================  ===========================================================================
module                  headings of the page
======================  ===========================================================================
``test_views``          Using sessions in views · Examples · Setting test cookies
``test_serialization``  Session serialization · Bundled serializers · Write your own serializer ·
                        Session object guidelines
``test_out_of_views``   Using sessions out of views · The SessionStore object · Extending
                        database-backed session engines
``test_saving``         When sessions are saved · Browser-length sessions vs. persistent sessions ·
                        Clearing the session store
``test_settings``       Enabling sessions · Configuring the session engine · Settings · Session
                        security · Technical details · Session IDs in URLs
``test_around``         what other pages promise of what Django builds on sessions: authentication,
                        messages, CSRF protection, testing
======================  ===========================================================================
"""
